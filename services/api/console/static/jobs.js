// The live list. Rows are kept and changed in place, so that whoever moves through it by keyboard keeps their place.
"use strict";

(function () {
  const card = document.querySelector("[data-console-jobs]");
  const body = card.querySelector("[data-console-jobs-rows]");
  const summary = card.querySelector("[data-console-jobs-summary]");
  const filter = card.querySelector("[data-console-jobs-filter]");
  const EVERY_MS = 2000;
  const rows = new Map();

  function newRow(job) {
    const row = segint.element("tr", null, { "data-job": job.id });
    const cells = {};
    for (const name of ["state", "model", "progress", "age", "place", "remaining", "priority", "worker", "id"]) {
      cells[name] = row.appendChild(segint.element("td"));
    }
    cells.badge = cells.state.appendChild(segint.element("span", "", { class: "badge" }));
    const track = cells.progress.appendChild(segint.element("div", null, { class: "progress progress-sm console-progress" }));
    cells.bar = track.appendChild(segint.element("div", null, { class: "progress-bar", role: "progressbar", "aria-label": "progress" }));
    cells.link = cells.id.appendChild(segint.element("a", job.id.slice(0, 8), { href: job.url, class: "font-monospace", title: job.id }));
    return { row, cells };
  }

  function text(cell, value) {
    if (cell.textContent !== value) cell.textContent = value;
  }

  function fill({ row, cells }, job) {
    text(cells.badge, job.cancelling ? "cancelling" : job.state);
    cells.badge.className = `badge bg-${segint.stateColor[job.state]} text-${segint.stateColor[job.state]}-fg`;
    row.title = job.error || "";
    text(cells.model, job.model);
    cells.bar.style.width = `${job.percent}%`;
    cells.bar.setAttribute("aria-valuenow", job.percent);
    cells.bar.parentNode.title = `${job.percent} %`;
    text(cells.age, segint.duration(job.age_seconds));
    text(cells.place, job.queue_position === null ? "–" : String(job.queue_position));
    text(cells.remaining, segint.duration(job.remaining_seconds));
    text(cells.priority, job.priority);
    text(cells.worker, job.worker || "–");
    const words = `${job.state} ${job.model} ${job.worker || ""} ${job.id}`.toLowerCase();
    row.hidden = !words.includes(filter.value.trim().toLowerCase());
  }

  function show(jobs) {
    const focused = document.activeElement;
    const seen = new Set();
    jobs.forEach(function (job, position) {
      let entry = rows.get(job.id);
      if (!entry) {
        entry = newRow(job);
        rows.set(job.id, entry);
      }
      seen.add(job.id);
      fill(entry, job);
      if (body.children[position] !== entry.row) body.insertBefore(entry.row, body.children[position] || null);
    });
    for (const [id, entry] of rows) {
      if (!seen.has(id)) {
        entry.row.remove();
        rows.delete(id);
      }
    }
    // A row that moved took the focus with it in the document, but the browser dropped it.
    if (focused && focused !== document.activeElement && document.contains(focused)) focused.focus({ preventScroll: true });
    card.dataset.loaded = "1";
  }

  let jobs = [];
  filter.addEventListener("input", () => show(jobs));

  async function refresh() {
    try {
      const answer = await segint.background(card.dataset.url);
      if (answer) {
        jobs = answer.jobs;
        show(jobs);
        const more = answer.more_queued ? ` and ${answer.more_queued} more that wait` : "";
        text(summary, `${answer.running} running, ${answer.queued} waiting, ${jobs.length} listed${more}`);
      }
    } catch {
      text(summary, "The server does not answer; trying again.");
    }
    window.setTimeout(refresh, EVERY_MS);
  }
  refresh();
})();
