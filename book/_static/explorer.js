// The explorer: one photograph at a time, its methods as tabs, a handle between photograph and map.
// Without this script the page shows every picture of every photograph, each with its words.
(function () {
  "use strict";
  const { element } = window.xailib;

  // Arrow keys, Home and End move between the tabs of a list.
  function moveBetween(tabs, event) {
    const here = tabs.indexOf(event.target);
    const steps = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: tabs.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const next = tabs[(steps[event.key] + tabs.length) % tabs.length];
    next.focus();
    next.click();
  }

  function copyOf(image) {
    return element("img", { src: image.src, alt: image.alt, width: image.width || 448, height: image.height || 448, class: "dark-light" });
  }

  let zoomed = null;
  function zoom(image) {
    if (!zoomed) {
      zoomed = element("dialog", { class: "explorer-zoom", "aria-label": "Enlarged image", onclick: () => zoomed.close() });
      document.body.append(zoomed);
    }
    zoomed.replaceChildren(copyOf(image), element("p", {}, image.alt), element("button", { type: "button" }, "Close"));
    zoomed.showModal();
  }

  function zoomButton(image) {
    return element("button", { type: "button", class: "explorer-zoom-button", "aria-label": `Enlarge: ${image.alt}`, onclick: () => zoom(image) });
  }

  function comparator(photograph, view) {
    const top = copyOf(view.image);
    const stage = element("div", { class: "explorer-stage" }, copyOf(photograph.image), top);
    const range = element("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": `Between the photograph and ${view.label}` });
    const line = element("div", { class: "explorer-line", "aria-hidden": "true" });
    function place() {
      top.style.clipPath = `inset(0 0 0 ${range.value}%)`;
      line.style.left = `${range.value}%`;
      range.setAttribute("aria-valuetext", `photograph on the left ${range.value} percent, ${view.label} on the rest`);
    }
    range.addEventListener("input", place);
    let dragged = false;
    function follow(event) {
      const box = stage.getBoundingClientRect();
      range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
      place();
    }
    stage.addEventListener("pointerdown", (event) => { dragged = false; stage.setPointerCapture(event.pointerId); });
    stage.addEventListener("pointermove", (event) => { if (event.buttons) { dragged = true; follow(event); } });
    stage.addEventListener("click", () => { if (!dragged) zoom(view.image); });
    stage.append(line, element("span", { class: "explorer-chip", "aria-hidden": "true" }, photograph.label),
      element("span", { class: "explorer-chip right", "aria-hidden": "true" }, view.label));
    place();
    return [stage, element("div", { class: "explorer-range" }, range), element("p", { class: "explorer-said" }, view.image.alt, " "), zoomButton(view.image)];
  }

  function start(figure) {
    const boxes = [...figure.querySelectorAll(".explorer-view")];
    const views = boxes.map((box) => ({
      box, image: box.querySelector("img"), label: box.querySelector("p").textContent,
      row: (box.className.match(/row-(\d+)/) || [])[1],
    }));
    const [photograph, ...maps] = views;
    const all = figure.querySelector(".explorer-views");
    const id = figure.id;
    all.id = `${id}-panel`;
    all.setAttribute("role", "tabpanel");
    const panel = element("div", { class: "explorer-panel", hidden: "" });
    const rows = [...figure.querySelectorAll("tbody tr")];

    function choose(index) {
      tabs.forEach((tab, place) => {
        tab.setAttribute("aria-selected", String(place === index));
        tab.tabIndex = place === index ? 0 : -1;
      });
      const view = index ? maps[index - 1] : null;
      all.hidden = Boolean(view);
      panel.hidden = !view;
      panel.replaceChildren(...(view ? comparator(photograph, view) : []));
      rows.forEach((row, place) => row.classList.toggle("chosen", Boolean(view) && String(place) === view.row));
    }

    const tabs = ["side by side", ...maps.map((view) => view.label)].map((label, index) => element("button", {
      type: "button", role: "tab", id: `${id}-tab-${index}`, onclick: () => choose(index),
    }, label));
    const list = element("div", { role: "tablist", class: "explorer-tabs", "aria-label": `Methods on ${photograph.image.alt}`,
      onkeydown: (event) => moveBetween(tabs, event) }, ...tabs);
    panel.setAttribute("role", "tabpanel");
    panel.id = `${id}-map`;
    tabs.forEach((tab, index) => tab.setAttribute("aria-controls", index ? panel.id : all.id));
    all.setAttribute("aria-labelledby", tabs[0].id);
    panel.setAttribute("aria-label", "One map over the photograph");
    all.before(list);
    all.after(panel);
    views.forEach((view) => {
      view.image.addEventListener("click", () => zoom(view.image));
      view.box.append(zoomButton(view.image));
    });
    rows.forEach((row, place) => {
      const index = maps.findIndex((view) => view.row === String(place));
      const cell = row.cells[0];
      if (index >= 0) cell.replaceChildren(element("button", { type: "button", class: "explorer-link",
        onclick: () => { choose(index + 1); list.scrollIntoView({ block: "nearest" }); } }, cell.textContent.trim()));
    });
    choose(0);
  }

  function pick(figures) {
    const links = [...document.querySelectorAll(".explorer-picker a")];
    const sections = figures.map((figure) => figure.closest("section"));
    function follow() {
      const name = decodeURIComponent(location.hash.slice(1));
      const wanted = name ? document.getElementById(name) : null;
      const asked = sections.findIndex((section) => wanted && section.contains(wanted));
      if (asked < 0 && sections.some((section) => !section.hidden) && sections.some((section) => section.hidden)) return;
      const shown = Math.max(0, asked);
      sections.forEach((section, index) => { section.hidden = index !== shown; });
      links.forEach((link, index) => {
        if (index === shown) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
      if (asked >= 0) wanted.scrollIntoView();
    }
    window.addEventListener("hashchange", follow);
    follow();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const figures = [...document.querySelectorAll("figure.explorer")];
    figures.forEach(start);
    if (figures.length) pick(figures);
  });
})();
