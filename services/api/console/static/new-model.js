// The new-model form: its rows, uploads with their progress, the dry run as it goes, and publishing.
"use strict";

(function () {
  const form = document.querySelector("[data-new-model]");
  const first = JSON.parse(form.querySelector("[data-new-model-first]").textContent);
  const find = (selector) => form.querySelector(selector);
  const fault = find("[data-console-fault]");
  const progress = find("[data-progress]");
  const publish = find("[data-publish-now]");
  const unchecked = find("[data-publish-unchecked]");
  const save = find("[data-save]");
  const EVERY_MS = 1000;
  // The version's record as this page read or wrote it. Only its own saves change that: were it what the server has now,
  // the next save would overwrite, or publish, what somebody else saved meanwhile and nobody here has looked at.
  let seen = first.draft ? first.draft.seen : null;
  let saved = Boolean(first.draft);
  let saving = false;
  let timer;

  function tell(sentence) {
    fault.hidden = !sentence;
    fault.textContent = sentence || "";
    if (sentence) fault.scrollIntoView({ block: "nearest" });
  }

  const structures = segint.rows(form, "structures");
  const channels = segint.rows(form, "channels");
  const frameworks = segint.rows(form, "frameworks");

  // The form's fields

  const family = form.elements.family;
  function showFamily() {
    find("[data-new-family]").hidden = family.value.trim() in first.families;
  }
  family.addEventListener("input", showFamily);

  function fields() {
    const found = {};
    for (const element of form.elements) {
      if (!element.name) continue;
      if (element.type === "checkbox") found[element.name] = element.checked;
      else if (element.multiple) found[element.name] = [...element.selectedOptions].map((option) => option.value);
      else found[element.name] = element.value;
    }
    found.structures = structures.filled();
    found.channels = channels.filled();
    found.frameworks = frameworks.filled();
    found.seen = saved ? seen : null;
    return found;
  }

  if (first.draft) {
    for (const [name, value] of Object.entries(first.draft)) {
      const element = form.elements[name];
      if (!element || name === "structures") continue;
      if (element.type === "checkbox") element.checked = value;
      else element.value = value;
    }
    first.draft.structures.forEach(structures.add);
    first.draft.frameworks.forEach(frameworks.add);
    find("[data-frameworks]").open = first.draft.frameworks.length > 0;
    for (const kind of ["artifact", "module"]) {
      if (first.draft[kind]) find(`[data-upload-note="${kind}"]`).textContent = `there is ${first.draft[kind]}`;
    }
  } else structures.add();
  channels.add({ channel_id: "CT" });
  showFamily();

  // Uploads

  function upload(kind, file) {
    const track = find(`[data-upload-track="${kind}"]`);
    const note = find(`[data-upload-note="${kind}"]`);
    const most = Number(form.dataset.mostBytes);
    if (file.size > most) return Promise.resolve({ error: `${file.name} has ${segint.bytes(file.size)}; this server takes ${segint.bytes(most)}.` });
    track.hidden = false;
    return new Promise(function (resolve) {
      const request = new XMLHttpRequest();
      const query = new URLSearchParams({ model_id: form.elements.model_id.value.trim(), kind, name: file.name, seen });
      request.open("POST", `${form.dataset.file}?${query}`);
      request.setRequestHeader("X-CSRFToken", segint.token());
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.addEventListener("progress", function (event) {
        if (event.lengthComputable) track.firstElementChild.style.width = `${(100 * event.loaded) / event.total}%`;
      });
      request.addEventListener("error", () => resolve({ error: `The upload of ${file.name} broke off; try again.` }));
      request.addEventListener("load", function () {
        let answer;
        try {
          answer = JSON.parse(request.responseText);
        } catch {
          answer = { error: `The server answered ${request.status}; load the page again.` };
        }
        note.textContent = answer.error ? "" : `${answer.name}, ${segint.bytes(answer.bytes)}, SHA-256 ${answer.sha256.slice(0, 12)}…`;
        track.hidden = Boolean(answer.error);
        resolve(answer);
      });
      request.send(file);
    });
  }

  // The dry run

  function report(state) {
    const list = find("[data-report]");
    list.replaceChildren();
    const check = state.check;
    const lines = { "Still to do": state.todos.join(" ") };
    if (check) {
      lines["Dry run"] = check.error ? `${check.state}: ${check.error}` : check.state;
      lines.Worker = check.worker;
      if (check.report.load_seconds !== undefined) {
        lines["Loaded within"] = segint.duration(check.report.load_seconds);
        lines["Ran within"] = segint.duration(check.report.run_seconds);
        lines.Memory = segint.bytes(check.report.memory_bytes);
        lines["GPU memory"] = check.report.device_bytes ? segint.bytes(check.report.device_bytes) : "";
        lines.Notes = (check.report.notes || []).join("; ");
      }
    }
    for (const [name, value] of Object.entries(lines)) {
      if (value) list.append(segint.element("dt", name, { class: "col-3" }), segint.element("dd", String(value), { class: "col-9" }));
    }
  }

  async function watch() {
    window.clearTimeout(timer);
    const query = new URLSearchParams({ model_id: form.elements.model_id.value.trim() });
    const asked = seen;
    const state = await segint.background(`${form.dataset.state}?${query}`).catch(() => null);
    if (saving) return; // which watches anew
    if (state) {
      report(state);
      if (asked === seen && state.seen !== seen) {
        publish.disabled = true;
        unchecked.hidden = true;
        progress.textContent = "";
        return tell("Somebody else changed this draft while it was open here. Load the page again, look at what is there now, and repeat your change.");
      }
      const check = state.check ? state.check.state : null;
      publish.disabled = check !== "passed" || state.enabled;
      unchecked.hidden = check === "passed" || state.enabled || (state.todos.length > 0 && !/^(Try it|The dry run)/.test(state.todos[0]));
      progress.textContent = { queued: "Waiting for a worker…", running: "A worker tries the model; its jobs wait meanwhile…", passed: "The dry run passed.", failed: "The dry run failed." }[check] || "";
      if (check !== "queued" && check !== "running") return;
    }
    timer = window.setTimeout(watch, EVERY_MS);
  }

  form.addEventListener("submit", async function (event) {
    event.preventDefault();
    tell("");
    saving = true;
    save.disabled = true;
    publish.disabled = true;
    progress.textContent = "Saving…";
    try {
      const draft = await segint.change(form.dataset.draft, fields());
      if (draft.error) return tell(draft.error);
      saved = true;
      seen = draft.seen;
      form.elements.model_id.readOnly = true;
      family.readOnly = true;
      first.families[family.value.trim()] ||= [];
      showFamily();
      for (const kind of ["artifact", "module"]) {
        const input = find(`[data-upload="${kind}"]`);
        if (!input.files.length) continue;
        progress.textContent = `Uploading ${input.files[0].name}…`;
        const done = await upload(kind, input.files[0]);
        if (done.error) return tell(done.error);
        seen = done.seen;
        input.value = "";
      }
      const asked = await segint.change(form.dataset.check, { model_id: draft.model_id });
      if (asked.error) tell(asked.error);
      saving = false;
      await watch();
    } finally {
      saving = false;
      save.disabled = false;
      if (!fault.hidden) progress.textContent = "";
    }
  });

  async function publishNow(withoutCheck) {
    tell("");
    const body = { model_id: form.elements.model_id.value.trim(), seen, unchecked: withoutCheck };
    const done = await segint.change(form.dataset.publish, body);
    if (done.error) tell(done.error);
    else window.location = done.url;
  }
  publish.addEventListener("click", () => publishNow(false));
  unchecked.addEventListener("click", function () {
    if (window.confirm("Nobody knows whether this model works. Publish it all the same?")) publishNow(true);
  });

  if (saved) watch();
})();
