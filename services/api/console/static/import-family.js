// The preview of a family's import, and the import.
"use strict";

(function () {
  const input = document.querySelector("[data-import]");
  const fault = document.querySelector("[data-console-fault]");
  const preview = document.querySelector("[data-import-preview]");
  const run = document.querySelector("[data-import-run]");
  const find = (name) => document.querySelector(`[data-import-${name}]`);
  let fingerprint = "";

  async function send(url) {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "X-CSRFToken": segint.token(), "Content-Type": "application/octet-stream" },
      body: input.files[0],
    });
    if (answer.redirected) window.location.reload();
    return answer.json().catch(() => ({ error: `The server answered ${answer.status}; load the page again.` }));
  }

  function tell(sentence) {
    fault.hidden = !sentence;
    fault.textContent = sentence || "";
  }

  async function look() {
    if (!input.files.length) return;
    const found = await send(input.dataset.preview);
    tell(found.error || found.conflict);
    preview.hidden = Boolean(found.error);
    if (found.error) return;
    fingerprint = found.fingerprint;
    find("title").textContent = found.family;
    find("family").textContent = found.created
      ? "The family is new."
      : found.changed.length
        ? `The family is there; these change: ${found.changed.join(", ")}.`
        : "The family is there, and stays as it is.";
    const rows = find("versions");
    rows.replaceChildren();
    for (const version of found.versions) {
      const row = segint.element("tr");
      for (const text of [version.model_id, version.what, version.details.join("; ")]) row.append(segint.element("td", text));
      rows.append(row);
    }
    find("kept").textContent = found.kept.length ? `Stored versions that the file does not name stay: ${found.kept.join(", ")}.` : "";
    run.disabled = Boolean(found.conflict);
  }

  input.addEventListener("change", look);
  run.addEventListener("click", async function () {
    run.disabled = true;
    const done = await send(`${input.dataset.run}?fingerprint=${fingerprint}`);
    tell(done.error);
    if (done.url) window.location = done.url;
    else run.disabled = false;
  });
})();
