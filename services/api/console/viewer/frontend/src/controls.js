// Parts of the page. Every text is set as text, never as HTML: names come from models and requests.

export function byId(id) {
    return document.getElementById(id)
}

/** Let the browser draw what has been said. */
export function paused() {
    return new Promise((resolve) => setTimeout(resolve))
}

/** Say a sentence over the scan, with how much of it is done (0 to 1, or null); null: say nothing. */
export function says(sentence, done = null, isFault = false) {
    const message = byId('message')
    message.hidden = sentence === null
    message.classList.toggle('fault', isFault)
    message.setAttribute('role', isFault ? 'alert' : 'status')
    if (byId('sentence').textContent !== sentence) byId('sentence').textContent = sentence ?? ''
    byId('progress').hidden = done === null
    byId('progress').value = done ?? 0
}

/** Fill a fieldset with one choice of `names`; `chosen(name, position)` is called when the user takes another. */
export function choices(fieldset, names, checked, chosen) {
    const labels = names.map((name, at) => {
        const input = Object.assign(document.createElement('input'), {
            type: 'radio', name: fieldset, value: String(at), checked: name === checked
        })
        input.addEventListener('change', () => chosen(name, at))
        const label = document.createElement('label')
        label.append(input, text('span', name))
        return label
    })
    const box = byId(fieldset).querySelector('.choices')
    const focused = box.contains(document.activeElement) ? document.activeElement.value : null
    box.replaceChildren(...labels)
    if (focused !== null) box.querySelector(`input[value="${focused}"]`)?.focus()
}

/** One line of the list of structures. `toggled(shown)` is called when the user shows or hides it. */
export function structureRow(structure, millilitres, toggled) {
    const input = Object.assign(document.createElement('input'), {
        type: 'checkbox', checked: structure.shown && !structure.fault, disabled: Boolean(structure.fault)
    })
    input.addEventListener('change', () => toggled(input.checked))
    const swatch = text('span', '', 'swatch')
    swatch.style.background = structure.color
    const label = document.createElement('label')
    label.append(input, swatch, text('span', structure.name, 'name'), text('span', size(structure, millilitres), 'size'))
    const row = document.createElement('li')
    row.append(label)
    if (structure.fault) row.append(text('div', structure.fault, 'fault'))
    return row
}

function size(structure, millilitres) {
    if (!structure.loaded) return ''
    if (structure.voxels === 0) return 'empty'
    return typeof millilitres === 'number' ? `${millilitres.toPrecision(3) * 1} ml` : `${structure.voxels} voxels`
}

function text(tag, content, name = '') {
    return Object.assign(document.createElement(tag), { textContent: content, className: name })
}
