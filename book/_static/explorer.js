// The explorer: one photograph at a time, its methods as tabs, a handle between photograph and map.
// Without this script the page shows every picture of every photograph, each with its words.
(function () {
  "use strict";
  const { address, element } = window.xailib;
  // Chosen once, for every photograph, and said in the address.
  const state = { name: "", chosen: new URLSearchParams() };
  const slug = (label) => label.toLowerCase().replace(/\+/g, "p").replace(/[^a-z0-9]+/g, "-");

  function say(changes, how) {
    for (const [key, value] of Object.entries(changes)) {
      if (value === "") state.chosen.delete(key); else state.chosen.set(key, value);
    }
    address.write(state.name, state.chosen, how);
  }

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
    const { id } = figure;
    const boxes = [...figure.querySelectorAll(".explorer-view")];
    const views = boxes.map((box) => ({
      box, image: box.querySelector("img"), label: box.querySelector("p").textContent,
      row: (box.className.match(/row-(\d+)/) || [])[1],
    }));
    const [photograph, ...maps] = views;
    const all = figure.querySelector(".explorer-views");
    all.id = `${id}-panel`;
    all.setAttribute("role", "tabpanel");
    const panel = element("div", { class: "explorer-panel", hidden: "" });
    const offered = figure.querySelector(".explorer-live");
    const live = offered && window.xailib.liveView(id.replace("figure-", ""), offered, state.chosen, say);
    const rows = [...figure.querySelectorAll("tbody tr")];

    function choose(index, said = true) {
      tabs.forEach((tab, place) => {
        tab.setAttribute("aria-selected", String(place === index));
        tab.tabIndex = place === index ? 0 : -1;
      });
      const view = index ? maps[index - 1] : null;
      const open = live && index === tabs.length - 1;
      all.hidden = index > 0;
      panel.hidden = !view;
      if (live) live.box.hidden = !open;
      if (said) say({ view: index ? slug(tabs[index].textContent) : "" });
      if (open) live.show();
      panel.replaceChildren(...(view ? comparator(photograph, view) : []));
      rows.forEach((row, place) => row.classList.toggle("chosen", Boolean(view) && String(place) === view.row));
    }

    const tabs = ["side by side", ...maps.map((view) => view.label), ...(live ? ["any class"] : [])].map((label, index) => element("button", {
      type: "button", role: "tab", id: `${id}-tab-${index}`, onclick: () => choose(index),
    }, label));
    const list = element("div", { role: "tablist", class: "explorer-tabs", "aria-label": `Methods on ${photograph.image.alt}`,
      onkeydown: (event) => moveBetween(tabs, event) }, ...tabs);
    panel.setAttribute("role", "tabpanel");
    panel.id = `${id}-map`;
    tabs.forEach((tab, index) => tab.setAttribute("aria-controls", !index ? all.id : index > maps.length ? live.box.id : panel.id));
    all.setAttribute("aria-labelledby", tabs[0].id);
    panel.setAttribute("aria-label", "One map over the photograph");
    all.before(list);
    all.after(panel, ...(live ? [live.box] : []));
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
    return (view) => choose(Math.max(0, tabs.findIndex((tab) => slug(tab.textContent) === view)), false);
  }

  // The photographs stand above theirs, and stay in sight while one of them is looked at.
  function pick(figures, choosers) {
    const picker = document.querySelector(".explorer-picker");
    const links = [...picker.querySelectorAll("a")];
    const names = links.map((link) => decodeURIComponent(link.hash.slice(1)));
    const sections = figures.map((figure) => figure.closest("section"));
    const frame = element("div", {});
    sections[0].before(frame);
    frame.append(picker, ...sections);

    function show(shown) {
      state.name = names[shown];
      sections.forEach((section, index) => { section.hidden = index !== shown; });
      links.forEach((link, index) => {
        if (index === shown) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
      choosers[shown](state.chosen.get("view"));
    }
    links.forEach((link, index) => link.addEventListener("click", (event) => {
      event.preventDefault();
      show(index);
      say({}, "pushState");
      // What is below stays where it is, unless it is out of sight.
      if (sections[index].getBoundingClientRect().bottom < picker.getBoundingClientRect().bottom) sections[index].scrollIntoView();
    }));

    function follow() {
      const { name, chosen } = address.read();
      const wanted = name ? document.getElementById(name) : null;
      const asked = sections.findIndex((section) => wanted && section.contains(wanted));
      if (asked < 0 && sections.some((section) => section.hidden)) return; // a place elsewhere on the page
      [...state.chosen.keys()].forEach((key) => state.chosen.delete(key));
      chosen.forEach((value, key) => state.chosen.set(key, value));
      show(Math.max(0, asked));
      if (asked >= 0) wanted.scrollIntoView();
    }
    window.addEventListener("hashchange", follow);
    follow();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const figures = [...document.querySelectorAll("figure.explorer")];
    if (figures.length) pick(figures, figures.map(start));
  });
})();
