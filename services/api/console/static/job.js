// One job: what it is, what happened to it, and what can be done; kept up to date until it has ended.
"use strict";

(function () {
  const page = document.querySelector("[data-console-job]");
  const part = (name) => page.querySelector(`[data-show="${name}"]`);
  const fault = page.querySelector("[data-console-job-fault]");
  const first = JSON.parse(page.querySelector("[data-console-job-first]").textContent);
  const EVERY_MS = 2000;
  const ENDED = ["succeeded", "failed", "cancelled", "expired"];
  let shown = 0;

  function sentence(element, text) {
    element.hidden = !text;
    element.textContent = text || "";
  }

  function facts(job) {
    const stages = Object.entries(job.stage_seconds).map(([name, seconds]) => `${name} ${seconds.toFixed(2)} s`);
    const lines = {
      "Place in the queue": job.queue_position,
      "Waits": job.obstacle || null,
      "Still takes about": job.remaining_seconds === null ? null : segint.duration(job.remaining_seconds),
      Priority: job.priority,
      Attempt: `${job.attempt} of ${job.attempt_limit}`,
      Worker: job.worker,
      "Submitted by": job.submitted_by,
      Accepted: segint.time(job.created_at),
      "Last begun": job.claimed_at && segint.time(job.claimed_at),
      Ended: job.finished_at && segint.time(job.finished_at),
      "Kept until": job.expires_at && segint.time(job.expires_at),
      Stages: stages.join(", "),
      Input: `${segint.bytes(job.input.bytes)} ${job.input.sha256 || ""}`,
      Result: job.result && `${segint.bytes(job.result.bytes)} ${job.result.sha256 || ""}`,
    };
    const list = part("facts");
    list.replaceChildren();
    for (const [name, value] of Object.entries(lines)) {
      if (value === null || value === undefined || value === "") continue;
      list.append(segint.element("dt", name, { class: "col-5" }), segint.element("dd", String(value), { class: "col-7 text-break" }));
    }
  }

  function show(job, possible, missingInput) {
    const badge = part("state");
    badge.textContent = job.cancel_requested && job.state === "running" ? "cancelling" : job.state;
    badge.className = `badge bg-${segint.stateColor[job.state]} text-${segint.stateColor[job.state]}-fg`;
    part("bar").style.width = `${job.percent}%`;
    part("percent").textContent = `${job.percent} %`;
    sentence(part("error"), job.error && (job.error.text || job.error.code));
    sentence(part("remarks"), job.remarks);
    sentence(part("missing-input"), missingInput);
    facts(job);
    for (const event of job.events.slice(shown)) {
      const row = segint.element("tr");
      for (const cell of [segint.time(event.at), event.kind.replace("_", " "), event.attempt || "", event.worker || "", event.details]) {
        row.append(segint.element("td", String(cell)));
      }
      part("events").append(row);
    }
    shown = job.events.length;
    for (const control of page.querySelectorAll("[data-possible]")) control.hidden = !possible[control.dataset.possible];
    const other = page.querySelector("[data-other-priority]");
    if (other) {
      other.dataset.value = job.priority === "interactive" ? "batch" : "interactive";
      other.textContent = job.priority === "interactive" ? "Let others go first" : "Let it go first";
    }
  }

  async function refresh() {
    const answer = await segint.background(page.dataset.url).catch(() => null);
    if (answer) show(answer, answer.possible, answer.missing_input);
    if (!answer || !ENDED.includes(answer.state)) window.setTimeout(refresh, EVERY_MS);
  }

  page.addEventListener("click", async function (event) {
    const button = event.target.closest("[data-change]");
    if (!button || (button.dataset.confirm && !window.confirm(button.dataset.confirm))) return;
    button.disabled = true;
    const answer = await segint.change(button.dataset.change, { priority: button.dataset.value });
    button.disabled = false;
    sentence(fault, answer.error);
    if (answer.url) window.location = answer.url;
    else if (!answer.error) refresh();
  });

  show(first.document, first.possible, first.missing_input);
  if (!ENDED.includes(first.document.state)) window.setTimeout(refresh, EVERY_MS);
})();
