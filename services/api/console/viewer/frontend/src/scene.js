// The canvas: one volume below, labels above it, drawn by NiiVue.
import { cmapper, DRAG_MODE, MULTIPLANAR_TYPE, Niivue, NVImage, SHOW_RENDER, SLICE_TYPE } from '@niivue/niivue'
import { difference } from './places.js'
import { Fault } from './voxels.js'

export const VIEWS = {
    'All four': SLICE_TYPE.MULTIPLANAR,
    Axial: SLICE_TYPE.AXIAL,
    Coronal: SLICE_TYPE.CORONAL,
    Sagittal: SLICE_TYPE.SAGITTAL,
    '3D': SLICE_TYPE.RENDER
}

/** Further off than this, in millimetres, NiiVue would not show what the server described. Floats hold far less. */
const SAME_PLACE_MM = 0.01

const HEADER_BYTES = 352

/** Memory for a volume of `count` voxels of `bytes` each, begun with its header, which `base64` is. */
export function withHeader(base64, count, bytes) {
    const memory = new Uint8Array(HEADER_BYTES + count * bytes)
    memory.set(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)))
    return memory
}

/** The bytes of `memory` in which the voxels are. */
export function voxelBytes(memory) {
    return memory.subarray(HEADER_BYTES)
}

/** Draws slices of labels voxel by voxel: between two voxels NiiVue would fade them out, and masks would seem smaller. */
class Drawing extends Niivue {
    updateInterpolation(layer, isForceLinear = false) {
        super.updateInterpolation(layer, isForceLinear)
        if (layer === 0 || isForceLinear) return
        const { gl } = this // with the overlays' texture active
        gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, gl.NEAREST)
        gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, gl.NEAREST)
    }
}

export class Scene {
    /** `moved(mm)` is called with the crosshair's place. Throws a Fault where there is no WebGL 2. */
    static async on(canvas, moved) {
        if (!document.createElement('canvas').getContext('webgl2')) {
            throw new Fault(
                'This browser has no WebGL 2, which the viewer draws with; use a current browser, with its hardware acceleration on.'
            )
        }
        const scene = new Scene()
        scene.nv = new Drawing({
            backColor: [0, 0, 0, 1],
            crosshairColor: [1, 0.9, 0.3, 0.9],
            crosshairWidth: 0.4,
            crosshairWidthUnit: 'percent',
            crosshairGap: 6,
            isCornerOrientationText: true,
            isForceMouseClickToVoxelCenters: true, // between two slices the scan is a mixture, and a mask cannot be
            fontColor: [0.95, 0.95, 0.95, 1],
            isRadiologicalConvention: true,
            isOrientationTextVisible: true,
            showAllOrientationMarkers: true,
            multiplanarShowRender: SHOW_RENDER.ALWAYS,
            multiplanarLayout: MULTIPLANAR_TYPE.GRID,
            multiplanarPadPixels: 4,
            dragMode: DRAG_MODE.pan,
            dragAndDropEnabled: false,
            show3Dcrosshair: true,
            showLegend: false,
            logLevel: 'error'
        })
        scene.nv.onLocationChange = (location) => moved([...location.mm].slice(0, 3))
        await scene.nv.attachToCanvas(canvas, false)
        return scene
    }

    /** Show `below` (made by `volume`), and above it `above` (made by `labels`). */
    show(below, above) {
        const { nv } = this
        nv.volumes = [below, ...above]
        nv.back = below
        nv.overlays = above
        nv.updateGLVolume()
        this.step(0, 0, 0)
    }

    /** Draw the volume below anew, in another window. */
    window(centre, width) {
        const [below] = this.nv.volumes
        below.cal_min = centre - width / 2
        below.cal_max = centre + width / 2
        this.nv.refreshLayers(below, 0)
        this.nv.drawScene()
    }

    /** Draw the labels anew. `opacity`, `outline`: 0 to 1. */
    labels(opacity, outline) {
        this.nv.opts.atlasOutline = outline
        this.nv.volumes.slice(1).forEach((image, at) => {
            image.opacity = opacity
            this.nv.refreshLayers(image, at + 1)
        })
        this.nv.drawScene()
    }

    view(name) {
        this.nv.setSliceType(VIEWS[name])
    }

    /** Move the crosshair by voxels to the patient's right, front and top, to the middle of one. */
    step(right, front, top) {
        this.nv.moveCrosshairInVox(right, front, top)
    }

    turn(azimuth, elevation) {
        const { scene } = this.nv
        this.nv.setRenderAzimuthElevation(scene.renderAzimuth + azimuth, scene.renderElevation + elevation)
    }

    reset() {
        this.nv.setPan2Dxyzmm([0, 0, 0, 1])
        this.nv.scene.crosshairPos = [0.5, 0.5, 0.5]
        this.nv.setRenderAzimuthElevation(110, 10)
        this.step(0, 0, 0)
    }

    get place() {
        return this.nv.frac2mm(this.nv.scene.crosshairPos, 0, true)
    }
}

/** An image for NiiVue of `memory` (header and voxels), which must lie where `grid` lies. */
export async function volume(memory, grid, [centre, width]) {
    const image = await NVImage.new(
        memory.buffer, 'volume.nii', 'gray', 1, null, centre - width / 2, centre + width / 2
    )
    return checked(image, grid)
}

/** An image of labels; its `img` is what to draw into. `colors`: of labels from 1 on, as #rrggbb. */
export async function labels(memory, grid, colors) {
    const image = await NVImage.new(memory.buffer, 'labels.nii', 'gray', 1)
    const part = (at) => [0, ...colors.map((color) => parseInt(color.slice(at, at + 2), 16))]
    image.colormapLabel = cmapper.makeLabelLut({
        R: part(1), G: part(3), B: part(5), A: [0, ...colors.map(() => 255)], I: [0, ...colors.map((_, at) => at + 1)]
    })
    return checked(image, grid)
}

function checked(image, grid) {
    const dims = image.hdr.dims.slice(1, 4)
    if (
        difference(image.hdr.affine, grid.affine) > SAME_PLACE_MM ||
        grid.shape.some((side, axis) => side !== dims[axis])
    ) {
        throw new Fault('The viewer does not place this volume where the server says it is, so it is not shown.')
    }
    return image
}
