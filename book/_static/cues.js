// What scrolls sideways says so: the style sheet fades the edge beyond which there is more.
(function () {
  "use strict";
  const BOXES = ".xailib-table, .figure-box.scrolls, .pst-scrollable-table-container, mjx-container[display]";

  function mark(box) {
    const beyond = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("more-left", box.scrollLeft > 1);
    box.classList.toggle("more-right", beyond > 1);
    if (box.localName === "mjx-container") box.tabIndex = box.scrollWidth > box.clientWidth + 1 ? 0 : -1;
  }

  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target.closest(BOXES))));
  function watch() {
    document.querySelectorAll(BOXES).forEach((box) => {
      box.addEventListener("scroll", () => mark(box), { passive: true });
      [box, ...box.children].forEach((part) => sizes.observe(part));
    });
  }

  // On paper nothing can be unfolded.
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("article details:not(.hide)").forEach((rows) => { rows.open = true; });
  });

  // The theme's button says which of its three states it has.
  function name(button) {
    const mode = document.documentElement.dataset.mode || "auto";
    button.setAttribute("aria-label", `Colours: ${mode === "auto" ? "as the system has them" : mode}; change`);
  }
  document.addEventListener("DOMContentLoaded", () => {
    const buttons = document.querySelectorAll(".theme-switch-button"), all = () => buttons.forEach(name);
    new MutationObserver(all).observe(document.documentElement, { attributeFilter: ["data-mode"] });
    all();
  });

  // Equations come last: MathJax draws them once the page is there.
  window.addEventListener("load", () => Promise.resolve(window.MathJax?.startup?.promise).then(watch));
})();
