// Bundles the page's script and style sheet into ../static, and collects the licences of what is in the bundle.
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'

const OUT = new URL('../static/', import.meta.url).pathname
const HERE = new URL('.', import.meta.url).pathname

await rm(OUT, { recursive: true, force: true })
await mkdir(OUT)
await copyFile(join(HERE, 'src/viewer.css'), join(OUT, 'viewer.css'))
const { metafile } = await build({
    absWorkingDir: HERE,
    entryPoints: ['src/viewer.js'],
    bundle: true,
    write: true,
    outfile: join(OUT, 'viewer.js'),
    format: 'esm',
    target: 'es2022',
    minify: true,
    legalComments: 'none', // their texts are in licences.txt
    metafile: true,
    logLevel: 'warning'
})

const packages = new Set()
for (const input of Object.keys(metafile.inputs)) {
    const found = input.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)\//)
    if (found) packages.add(found[1])
}
const texts = []
for (const name of [...packages].sort()) {
    const folder = join(HERE, 'node_modules', name)
    const { version, license } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'))
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e(\.|$)/i.test(entry))
    const path = file ? join(folder, file) : join(HERE, 'licences', `${name.replace('/', '__')}.txt`)
    texts.push(`${name} ${version} (${license})\n\n${(await readFile(path, 'utf8')).trim()}\n`)
}
const more = join(HERE, 'licences', 'roboto.txt') // the letters inside NiiVue
texts.push((await readFile(more, 'utf8')).trim() + '\n')
await writeFile(join(OUT, 'licences.txt'), texts.join(`\n${'-'.repeat(100)}\n\n`))
