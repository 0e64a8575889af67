// Which values are shown black and white.

/** Hounsfield units, as [centre, width]. */
export const PRESETS = {
    Brain: [40, 80],
    'Soft tissue': [40, 400],
    Lung: [-600, 1500],
    Bone: [400, 1800]
}

const SAMPLES = 200_000

/** [centre, width] that all but the darkest and brightest hundredth of `voxels` lie in. */
export function automatic(voxels) {
    const step = Math.max(1, Math.floor(voxels.length / SAMPLES))
    const sample = new Int16Array(Math.ceil(voxels.length / step))
    for (let i = 0; i < sample.length; i++) sample[i] = voxels[i * step]
    sample.sort()
    const low = sample[Math.floor(0.01 * (sample.length - 1))]
    const high = sample[Math.ceil(0.99 * (sample.length - 1))]
    return [(low + high) / 2, Math.max(1, high - low)]
}

/** The name of the window to begin with: Hounsfield units are known by the model, or by air. */
export function first(grid, voxels) {
    if (grid.modalities.length) return grid.modalities.some((name) => name.startsWith('CT')) ? 'Soft tissue' : 'Auto'
    const [centre, width] = automatic(voxels)
    return centre - width / 2 <= -500 ? 'Soft tissue' : 'Auto'
}
