// The unit browser: search, filter, sort and page through the units of a run.
// Data stands in the page (a page opened from a disk may not fetch), thumbnails are one picture.
(function () {
  "use strict";
  const { element } = window.xailib;
  const PAGE = 50;

  function start(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const layers = [...new Set(data.rows.map((row) => row[0]))];
    const state = { words: "", layer: "", column: -1, down: true, page: 0 };
    const keys = data.rows.map((row) => `${row[2]} ${row[0]} ${row[1]}`.toLowerCase());

    const search = element("input", {
      type: "search", placeholder: "concept, such as dog", "aria-label": "Search concepts",
      oninput: (event) => update({ words: event.target.value.toLowerCase(), page: 0 }),
    });
    const layer = element("select", {
      "aria-label": "Layer", onchange: (event) => update({ layer: event.target.value, page: 0 }),
    }, element("option", { value: "" }, "all layers"),
      ...layers.map((name) => element("option", { value: name }, name)));
    const count = element("span", { role: "status" });
    const back = element("button", { type: "button", onclick: () => update({ page: state.page - 1 }) }, "‹ previous");
    const next = element("button", { type: "button", onclick: () => update({ page: state.page + 1 }) }, "next ›");
    const heads = ["layer", "unit", "concept", "similarity"].map((name, column) => {
      const button = element("button", { type: "button", onclick: () => update({
        column, down: state.column === column ? !state.down : column === 3, page: 0 }) }, name);
      return element("th", { scope: "col" }, button);
    });
    const body = element("tbody", {});
    const table = element("div", { class: "xailib-table", tabindex: "0", role: "region", "aria-label": "Units" },
      element("table", {}, element("thead", {}, element("tr", {}, ...heads,
        element("th", { scope: "col" }, "most activating probe images"))), body));

    function thumbnail(index) {
      const x = (index % data.columns) * data.thumb, y = Math.floor(index / data.columns) * data.thumb;
      return element("span", { class: "thumb", style:
        `width:${data.thumb}px;height:${data.thumb}px;background-image:url("${box.dataset.sheet}");background-position:-${x}px -${y}px` });
    }

    function update(change) {
      Object.assign(state, change);
      let found = data.rows.map((_, index) => index).filter((index) =>
        (!state.layer || data.rows[index][0] === state.layer) && keys[index].includes(state.words));
      if (state.column >= 0) {
        const sign = state.down ? -1 : 1;
        found.sort((a, b) => {
          const left = data.rows[a][state.column], right = data.rows[b][state.column];
          return sign * (left < right ? -1 : left > right ? 1 : 0) || a - b;
        });
      }
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      state.page = Math.min(Math.max(state.page, 0), pages - 1);
      back.disabled = state.page === 0;
      next.disabled = state.page === pages - 1;
      heads.forEach((head, column) => head.setAttribute("aria-sort",
        column !== state.column ? "none" : state.down ? "descending" : "ascending"));
      count.textContent = `${found.length} of ${data.rows.length} units, page ${state.page + 1} of ${pages}`;
      body.replaceChildren(...found.slice(state.page * PAGE, (state.page + 1) * PAGE).map((index) => {
        const [name, unit, concept, similarity, images] = data.rows[index];
        return element("tr", {}, element("td", {}, name), element("td", {}, String(unit)),
          element("td", {}, concept), element("td", {}, similarity.toFixed(3)),
          element("td", {}, ...images.map(thumbnail)));
      }));
    }

    box.append(element("div", { class: "unit-controls" }, search, layer, back, next, count), table);
    update({});
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".unit-browser").forEach(start));
})();
