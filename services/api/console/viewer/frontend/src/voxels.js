// Voxels from the server: gzip as it lies in its files, inflated here.
import { Gunzip } from 'fflate'

/** What went wrong, as a sentence for the person who looks. */
export class Fault extends Error {}

/** The JSON document at `url`. Throws a Fault with the server's own sentence. */
export async function json(url) {
    return (await answer(url)).json()
}

/**
 * Inflate what is at `url` and hand it over piece by piece, in order, as `take(bytes, offset)`.
 * Exactly `size` bytes come, or a Fault: never a part that looks like a whole.
 * `start()` is called before the first piece, again if a second way of inflating has to be tried.
 */
export async function inflate(url, size, start, take) {
    try {
        await pump((await answer(url)).body.pipeThrough(new DecompressionStream('gzip')), size, start, take)
    } catch (error) {
        if (error instanceof Fault) throw error
        // Several gzip members, or padding behind the last, are sound for the server, but not for DecompressionStream.
        await pump((await answer(url)).body.pipeThrough(members(size)), size, start, take)
    }
}

async function answer(url) {
    let response
    try {
        response = await fetch(url, { headers: { Accept: 'application/json' } })
    } catch {
        throw new Fault('The server does not answer; look whether it runs, and load the page again.')
    }
    if (response.ok) return response
    let sentence
    try {
        const body = await response.json()
        sentence = body.error ?? body.ExceptionDetails
    } catch {
        // not one of the server's own answers
    }
    if (!sentence && (response.status === 401 || response.status === 403)) {
        sentence = 'You may not look at this job, or your session has ended; log in again.'
    }
    throw new Fault(sentence ?? `The server answers with status ${response.status}; load the page again later.`)
}

async function pump(stream, size, start, take) {
    start()
    const reader = stream.getReader()
    let offset = 0
    for (;;) {
        const { done, value } = await reader.read()
        if (done) break
        if (offset + value.length > size) {
            await reader.cancel().catch(() => {})
            throw new Fault('The voxels are more than their size says, so they are not shown.')
        }
        take(value, offset)
        offset += value.length
    }
    if (offset !== size) throw new Fault('The voxels are fewer than their size says, so they are not shown.')
}

/** A stream that inflates gzip of any number of members; what follows `size` bytes of voxels is dropped as padding. */
function members(size) {
    let controller
    let inflated = 0
    const inflater = new Gunzip((bytes) => {
        inflated += bytes.length
        controller.enqueue(bytes)
    })
    const push = (bytes, last) => {
        try {
            inflater.push(bytes, last)
        } catch {
            if (inflated < size) throw new Fault('The voxels are not sound gzip, so they are not shown.')
        }
    }
    return new TransformStream({
        start(its) {
            controller = its
        },
        transform(bytes) {
            push(bytes, false)
        },
        flush() {
            push(new Uint8Array(0), true)
        }
    })
}
