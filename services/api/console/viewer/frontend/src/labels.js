// Which structures each voxel of a grid belongs to, and which of them is seen.
//
// Structures may overlap, and a graphics card wants one number per voxel. So a voxel holds the number of a *set* of
// structures; of those shown, the smallest is drawn on top, because it would not be seen otherwise.

const MOST_SETS = 65536
/** Labels are bytes, and 0 is no structure. */
export const MOST_STRUCTURES = 255

export class Labels {
    /** `voxels`: how many; `structures`: how many will be added, at most MOST_STRUCTURES. */
    constructor(voxels, structures) {
        this.sets = [[]]
        this.setOf = new Uint8Array(voxels)
        this.counts = new Array(structures).fill(0)
        /** Per structure, of each set the set that has the structure too: masks arrive in pieces, by turns. */
        this.next = Array.from({ length: structures }, () => [])
    }

    /** Begin with a structure (from 0), or begin again with it. */
    begin(structure) {
        if (this.counts[structure]) {
            // It was added in part; what it left is a set of its own, which is not the structure.
            this.sets = this.sets.map((set) => set.filter((other) => other !== structure))
        }
        this.counts[structure] = 0
        this.next[structure] = []
    }

    /** Add a piece of the structure's mask: bytes, not 0 where it is, of the voxels from `offset` on. */
    add(structure, mask, offset) {
        const next = this.next[structure]
        for (let i = 0; i < mask.length; i++) {
            if (mask[i] === 0) continue
            const before = this.setOf[offset + i]
            const after = next[before] ?? this.#withStructure(before, structure)
            this.setOf[offset + i] = after
            this.counts[structure]++
        }
    }

    #withStructure(before, structure) {
        const after = this.sets.push([...this.sets[before], structure]) - 1
        if (after === MOST_SETS) throw new Error('more combinations of structures than can be told apart')
        if (after > 255 && this.setOf instanceof Uint8Array) this.setOf = Uint16Array.from(this.setOf)
        this.next[structure][before] = after
        return after
    }

    /** Write into `target` per voxel 1 + the structure to be seen there, or 0; `shown(structure)` says which may be. */
    draw(target, shown) {
        const label = this.sets.map((set) => {
            const seen = set.filter(shown)
            return seen.length ? 1 + seen.reduce((a, b) => (this.counts[b] < this.counts[a] ? b : a)) : 0
        })
        const table = Uint8Array.from(label)
        const { setOf } = this
        for (let i = 0; i < setOf.length; i++) target[i] = table[setOf[i]]
    }

    /** The structures of one voxel. */
    at(voxel) {
        return this.sets[this.setOf[voxel]]
    }
}
