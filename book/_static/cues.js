// What scrolls sideways says so: the style sheet fades the edge beyond which there is more.
(function () {
  "use strict";
  const BOXES = ".xailib-table, .figure-box.scrolls, .pst-scrollable-table-container, mjx-container";

  function mark(box) {
    const beyond = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("more-left", box.scrollLeft > 1);
    box.classList.toggle("more-right", beyond > 1);
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
    document.querySelectorAll(".xailib-table details").forEach((rows) => { rows.open = true; });
  });

  // Equations come last: MathJax draws them once the page is there.
  window.addEventListener("load", () => Promise.resolve(window.MathJax?.startup?.promise).then(watch));
})();
