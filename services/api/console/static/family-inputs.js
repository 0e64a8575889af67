// What a family takes: its body parts, gender and input channels, saved together.
"use strict";

(function () {
  const form = document.querySelector("[data-family-inputs]");
  const first = JSON.parse(form.querySelector("[data-family-inputs-first]").textContent);
  const fault = form.querySelector("[data-console-fault]");
  const channels = segint.rows(form, "channels");
  first.channels.forEach(channels.add);
  for (const option of form.elements.body_parts.options) option.selected = first.body_parts.map(String).includes(option.value);
  form.elements.gender.value = String(first.gender);

  form.addEventListener("submit", async function (event) {
    event.preventDefault();
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    const answer = await segint.change(form.dataset.save, {
      seen: first.seen,
      gender: form.elements.gender.value,
      body_parts: [...form.elements.body_parts.selectedOptions].map((option) => option.value),
      channels: channels.filled(),
    });
    button.disabled = false;
    fault.hidden = !answer.error;
    fault.textContent = answer.error || "";
    if (answer.error) fault.scrollIntoView({ block: "nearest" });
    else window.location = answer.url;
  });
})();
