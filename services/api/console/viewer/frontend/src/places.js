// Places in the patient, in words.

/** The index (i, j, k) of the voxel of `grid` at `mm` (RAS); null outside. */
export function indexAt(grid, mm) {
    const index = solve(grid.affine, mm).map(Math.round)
    return index.every((value, axis) => value >= 0 && value < grid.shape[axis]) ? index : null
}

/** Where the voxel of that index lies in an array, x fastest. */
export function positionOf(grid, [i, j, k]) {
    return i + grid.shape[0] * (j + grid.shape[1] * k)
}

/** «L 12.0, A 3.5, S 100.0 mm», for RAS millimetres. */
export function inWords(mm) {
    const letters = ['RL', 'AP', 'SI']
    return `${mm.map((value, axis) => `${letters[axis][value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(1)}`).join(', ')} mm`
}

/** The largest difference between two affines of 3 or 4 rows. */
export function difference(one, other) {
    let largest = 0
    for (let row = 0; row < 3; row++) {
        for (let column = 0; column < 4; column++) {
            largest = Math.max(largest, Math.abs(one[row][column] - other[row][column]))
        }
    }
    return largest
}

function solve(affine, mm) {
    const [a, b, c] = affine
    const right = [mm[0] - a[3], mm[1] - b[3], mm[2] - c[3]]
    const determinant = (u, v, w) =>
        u[0] * (v[1] * w[2] - v[2] * w[1]) - u[1] * (v[0] * w[2] - v[2] * w[0]) + u[2] * (v[0] * w[1] - v[1] * w[0])
    const whole = determinant(a, b, c)
    return [0, 1, 2].map((column) => {
        const rows = [a, b, c].map((row, at) => row.slice(0, 3).with(column, right[at]))
        return determinant(...rows) / whole
    })
}
