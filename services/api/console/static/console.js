// What the console's pages share: the token of this session, and the handlers that a content security policy without
// inline scripts does not allow in attributes.
"use strict";

window.segint = {
  token() {
    return (typeof Cookies !== "undefined" && Cookies.get("starlette_admin_csrftoken")) || "";
  },

  /** Ask the server for JSON; by itself, without keeping the session awake. Null once the session is over. */
  async background(url) {
    const answer = await fetch(url, { headers: { "X-Console-Background": "1", Accept: "application/json" } });
    if (answer.redirected || answer.status === 401) {
      window.location.reload();
      return null;
    }
    return answer.ok ? answer.json() : null;
  },

  /** Make a change; the answer's JSON, whose `error` is a sentence where it was refused. */
  async change(url, body) {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "X-CSRFToken": this.token(), "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify(body || {}),
    });
    if (answer.redirected) {
      window.location.reload();
      return { error: "The session is over; log in again." };
    }
    try {
      return await answer.json();
    } catch {
      return { error: `The server answered ${answer.status}; load the page again.` };
    }
  },

  /** An element with text, never with markup. */
  element(name, text, attributes) {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    return made;
  },

  /** Have each picker within `place` show the colour of the text beside it; none is shown faintly. */
  showColors(place) {
    for (const picker of place.querySelectorAll("[data-console-picker]")) {
      const typed = picker.parentNode.querySelector("[data-console-color]").value.trim();
      const known = /^#[0-9a-f]{6}$/i.test(typed);
      picker.classList.toggle("console-no-color", !known);
      if (known) picker.value = typed;
    }
  },
};

// The text is what is saved: a picker always has a colour, and a structure need not.
document.addEventListener("input", function (event) {
  const field = event.target;
  if (!field.matches("[data-console-color], [data-console-picker]")) return;
  if (field.matches("[data-console-picker]")) field.parentNode.querySelector("[data-console-color]").value = field.value;
  segint.showColors(field.parentNode);
});
segint.showColors(document);

document.addEventListener("click", function (event) {
  if (event.target.closest("[data-console-apply-columns]")) applyColumnVisibility();
});
document.addEventListener("change", function (event) {
  const control = event.target.closest("[data-console-goto]");
  if (control) window.location = control.value;
});
