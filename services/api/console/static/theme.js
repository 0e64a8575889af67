// Before anything is drawn: the theme that was chosen here, else the one of the system.
(function () {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const chosen = function () {
    try {
      return window.localStorage.getItem("segint-theme");
    } catch {
      return null;
    }
  };
  const apply = function () {
    document.documentElement.setAttribute("data-bs-theme", chosen() || (dark.matches ? "dark" : "light"));
  };
  apply();
  dark.addEventListener("change", apply);
  document.addEventListener("click", function (event) {
    if (!event.target.closest("[data-console-theme]")) return;
    const next = document.documentElement.getAttribute("data-bs-theme") === "dark" ? "light" : "dark";
    try {
      window.localStorage.setItem("segint-theme", next);
    } catch {
      // A browser that keeps nothing: the choice lasts for this page.
    }
    document.documentElement.setAttribute("data-bs-theme", next);
  });
})();
