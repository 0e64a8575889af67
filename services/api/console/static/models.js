// What is done to versions in the lists of models.
"use strict";

document.addEventListener("click", async function (event) {
  const button = event.target.closest("[data-model-change], [data-model-copy]");
  if (!button) return;
  const row = button.closest("[data-model]");
  const fault = document.querySelector("[data-console-fault]");
  const body = { model_id: row.dataset.model, seen: row.dataset.seen };
  if (button.dataset.modelCopy) {
    const next = button.dataset.next === "1";
    body.new_id = window.prompt(next ? "Identifier of the new version:" : "Identifier of the duplicate:", `${row.dataset.model} ${next ? "next" : "copy"}`);
    if (body.new_id === null) return;
    body.next_minor = next;
  } else if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
  button.disabled = true;
  const answer = await segint.change(button.dataset.modelChange || button.dataset.modelCopy, body);
  button.disabled = false;
  fault.hidden = !answer.error;
  fault.textContent = answer.error || "";
  if (answer.error) fault.scrollIntoView({ block: "nearest" });
  else if (answer.url && button.dataset.modelCopy) window.location = answer.url;
  else window.location.reload();
});
