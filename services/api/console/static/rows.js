// Rows that somebody adds to a form and takes away again: structures, input channels, regulatory frameworks. Each is a
// copy of a template, and its fields are named by data-field.
"use strict";

/** The rows called `name` of a form: `add` one with values, or all that were `filled` in as a list. */
segint.rows = function (form, name) {
  const list = form.querySelector(`[data-rows="${name}"]`);
  const template = form.querySelector(`[data-row="${name}"]`);

  function add(values) {
    const row = template.content.firstElementChild.cloneNode(true);
    for (const field of row.querySelectorAll("[data-field]")) {
      const value = (values || {})[field.dataset.field];
      if (value === undefined || value === null) continue;
      if (field.type === "checkbox") field.checked = value;
      else if (field.multiple) for (const option of field.options) option.selected = value.map(String).includes(option.value);
      else field.value = value;
    }
    // What was filled in once is not hidden away.
    for (const details of row.querySelectorAll("details")) {
      details.open = [...details.querySelectorAll("[data-field]")].some((field) => (field.type === "checkbox" ? field.checked : field.value));
    }
    segint.showColors(row);
    list.append(row);
    return row;
  }

  function valueOf(field) {
    if (field.type === "checkbox") return field.checked;
    if (field.multiple) return [...field.selectedOptions].map((option) => option.value);
    return field.value;
  }

  form.querySelector(`[data-add-row="${name}"]`).addEventListener("click", () => add().querySelector("input").focus());
  list.addEventListener("click", function (event) {
    if (event.target.closest("[data-remove-row]")) event.target.closest("[data-one-row]").remove();
  });
  return {
    add,
    filled: () =>
      [...list.children].map((row) =>
        Object.fromEntries([...row.querySelectorAll("[data-field]")].map((field) => [field.dataset.field, valueOf(field)])),
      ),
  };
};
