// The page of one job: loads what there is, and connects the controls with the scene.
import { Labels, MOST_STRUCTURES } from './labels.js'
import { indexAt, inWords, positionOf } from './places.js'
import { labels as labelImage, Scene, volume, voxelBytes, withHeader } from './scene.js'
import { Fault, inflate, json } from './voxels.js'
import { automatic, first, PRESETS } from './windows.js'
import { byId, choices, paused, says, structureRow } from './controls.js'

/** Masks inflated at one time: more would wait for each other. */
const AT_ONCE = 3

const HERE = 'view'

/** The window of what stands in for a scan that is gone: zeros. */
const ALL_BLACK = [1, 2]

class Page {
    async load() {
        this.about = await json(`${HERE}/description`)
        byId('about').textContent = `${this.about.model} · job ${this.about.id} · ${this.about.state}`
        document.title = `${this.about.model} · scan viewer · SegInt`
        this.remarks = this.about.remarks
        this.#remark()
        this.grids = this.about.grids
        if (!this.grids.length) throw new Fault(this.remarks.join(' ') || 'There is nothing to show.')
        this.structures = this.about.structures.map((structure) => ({ ...structure, shown: true, loaded: false }))
        this.scene = await Scene.on(byId('canvas'), (mm) => this.#moved(mm))
        this.#connect()
        await this.#choose(this.grids[0])
        await this.#loadMasks()
        this.#draw()
        document.body.dataset.state = 'shown'
    }

    /** Show the volume of `grid`, loaded now if it is the first time. */
    async #choose(grid) {
        this.grid = grid
        if (!grid.image) await this.#loadVolume(grid)
        this.preset = grid.preset
        this.#show()
        says(null)
    }

    async #loadVolume(grid) {
        const count = grid.shape[0] * grid.shape[1] * grid.shape[2]
        const memory = withHeader(grid.header, count, 2)
        const voxels = voxelBytes(memory)
        const name = `Loading «${grid.name}» …`
        if (grid.data) {
            await inflate(`${HERE}/${grid.data}`, count * 2, () => says(name, 0), (bytes, offset) => {
                voxels.set(bytes, offset)
                says(name, (offset + bytes.length) / (count * 2))
            })
        }
        await paused()
        const values = new Int16Array(voxels.buffer, voxels.byteOffset, count)
        grid.automatic = automatic(values)
        grid.preset = grid.data ? first(grid, values) : 'Auto'
        grid.window = grid.data ? (PRESETS[grid.preset] ?? grid.automatic) : ALL_BLACK
        grid.image = await volume(memory, grid, grid.window)
    }

    async #loadMasks() {
        const waiting = []
        for (const grid of this.grids) {
            const its = this.structures.filter((structure) => structure.grid === grid.number)
            if (its.length > MOST_STRUCTURES) {
                this.#remark(`Only the first ${MOST_STRUCTURES} structures of «${grid.name}» are shown.`)
            }
            grid.structures = its.slice(0, MOST_STRUCTURES)
            if (!grid.structures.length) continue
            const count = grid.shape[0] * grid.shape[1] * grid.shape[2]
            grid.labels = new Labels(count, grid.structures.length)
            grid.structures.forEach((structure, at) => waiting.push({ grid, structure, at, count }))
        }
        const total = waiting.length
        let done = 0
        const next = async () => {
            for (let mask = waiting.shift(); mask; mask = waiting.shift()) {
                says(`Loading masks: ${done} of ${total} …`, done / total)
                await this.#loadMask(mask)
                done += 1
            }
        }
        await Promise.all(Array.from({ length: AT_ONCE }, next))
        for (const grid of this.grids.filter((one) => one.labels)) {
            const colors = grid.structures.map((structure) => structure.color)
            const count = grid.shape[0] * grid.shape[1] * grid.shape[2]
            grid.overlay = await labelImage(withHeader(grid.label_header, count, 1), grid, colors)
        }
        this.#list()
        this.#draw(false)
        this.#show()
        says(null)
    }

    async #loadMask({ grid, structure, at, count }) {
        try {
            await inflate(`${HERE}/${structure.data}`, count, () => grid.labels.begin(at), (bytes, offset) => {
                grid.labels.add(at, bytes, offset)
            })
            structure.loaded = true
            structure.voxels = grid.labels.counts[at]
        } catch (error) {
            if (!(error instanceof Fault)) throw error
            structure.fault = error.message
        }
    }

    /** Give the scene the volume of the chosen grid, and the labels that can be shown on it. */
    #show() {
        const { grid } = this
        // Of two grids that nothing places in one patient, neither is drawn on the other.
        const above = this.grids.filter((one) => one.overlay && (one === grid || (one.placed && grid.placed)))
        // Lest the letters tell an orientation that nobody knows.
        this.scene.nv.opts.isOrientationTextVisible = grid.placed
        this.scene.show(grid.image, above.map((one) => one.overlay))
        this.#window(grid.window, false)
    }

    /** Write anew which structure is seen at each voxel, and draw that. */
    #draw(now = true) {
        for (const grid of this.grids.filter((one) => one.overlay)) {
            const shown = (at) => grid.structures[at].loaded && grid.structures[at].shown
            grid.labels.draw(grid.overlay.img, shown)
        }
        if (now) this.#drawLabels()
    }

    #drawLabels() {
        this.scene.labels(byId('opacity').valueAsNumber / 100, byId('outline').checked ? 1 : 0)
    }

    #window(window, draw = true) {
        this.grid.window = window
        byId('centre').value = Math.round(window[0])
        byId('width').value = Math.round(window[1])
        choices('windows', this.grid.data ? [...Object.keys(PRESETS), 'Auto'] : [], this.grid.preset, (name) => {
            this.grid.preset = name
            this.#window(PRESETS[name] ?? this.grid.automatic)
        })
        byId('windows').hidden = !this.grid.data
        if (draw) this.scene.window(...window)
    }

    #connect() {
        choices('views', ['All four', 'Axial', 'Coronal', 'Sagittal', '3D'], 'All four', (name) => this.scene.view(name))
        byId('channels').hidden = this.grids.length < 2
        const names = this.grids.map((grid) => grid.name)
        choices('channels', names, names[0], (_, at) => this.#guard(this.#choose(this.grids[at])))
        byId('reset').addEventListener('click', () => this.scene.reset())
        for (const id of ['centre', 'width']) {
            byId(id).addEventListener('change', () => {
                const [centre, width] = [byId('centre').valueAsNumber, byId('width').valueAsNumber]
                if (!Number.isFinite(centre) || !(width >= 1)) return
                this.grid.preset = null
                this.#window([centre, width])
            })
        }
        byId('opacity').addEventListener('input', () => this.#drawLabels())
        byId('outline').addEventListener('change', () => this.#drawLabels())
        for (const [id, shown] of [['all', true], ['none', false]]) {
            byId(id).addEventListener('click', () => {
                for (const structure of this.structures) structure.shown = shown
                this.#list()
                this.#draw()
            })
        }
        byId('frame').addEventListener('keydown', (event) => this.#pressed(event), { capture: true })
        byId('frame').addEventListener('keyup', (event) => event.stopPropagation(), { capture: true })
    }

    #pressed(event) {
        // NiiVue has keys of its own, which nobody here is told of.
        event.stopPropagation()
        if (event.ctrlKey || event.altKey || event.metaKey) return
        const moves = {
            ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0],
            PageUp: [0, 0, 1], PageDown: [0, 0, -1]
        }
        const turns = { ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowUp: [0, 5], ArrowDown: [0, -5] }
        const turn = event.shiftKey && turns[event.key]
        if (turn) this.scene.turn(...turn)
        else if (moves[event.key]) this.scene.step(...moves[event.key])
        else return
        event.preventDefault()
    }

    #list() {
        const rows = this.structures.map((structure) => {
            const { spacing, placed } = this.grids.find((grid) => grid.number === structure.grid)
            const millilitres = placed && (structure.voxels * spacing[0] * spacing[1] * spacing[2]) / 1000
            return structureRow(structure, millilitres, (shown) => {
                structure.shown = shown
                this.#draw()
            })
        })
        byId('structures').replaceChildren(...rows)
        byId('masks').hidden = !rows.length
    }

    #moved(mm) {
        const { grid } = this
        const index = indexAt(grid, mm)
        const words = [grid.placed ? inWords(mm) : null, index && `voxel ${index.join(', ')}`]
        if (index && grid.data && grid.image) words.push(`value ${grid.image.img[positionOf(grid, index)]}`)
        const here = []
        for (const one of this.grids) {
            if (!one.overlay || (one !== grid && !(one.placed && grid.placed))) continue
            const at = indexAt(one, mm)
            const loaded = at ? one.labels.at(positionOf(one, at)).filter((number) => one.structures[number].loaded) : []
            here.push(...loaded.map((number) => one.structures[number].name))
        }
        if (here.length) words.push(here.join(', '))
        byId('place').replaceChildren(
            ...words.filter(Boolean).map((word) => Object.assign(document.createElement('span'), { textContent: word }))
        )
    }

    #remark(sentence) {
        if (sentence) this.remarks.push(sentence)
        byId('remarks').hidden = !this.remarks.length
        byId('remarks').replaceChildren(
            ...this.remarks.map((text) => Object.assign(document.createElement('li'), { textContent: text }))
        )
    }

    /** Wait for `work`, and say what went wrong. */
    async #guard(work) {
        try {
            await work
        } catch (error) {
            fail(error)
        }
    }
}

function fail(error) {
    document.body.dataset.state = 'failed'
    const unforeseen = error instanceof RangeError
        ? 'This browser has not enough memory for the volume; close other pages, and load this one again.'
        : `The viewer failed (${error.message}); load the page again, and tell the server's administrator if it recurs.`
    says(error instanceof Fault ? error.message : unforeseen, null, true)
}

new Page().load().catch(fail)
