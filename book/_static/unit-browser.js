// The unit browser: search, filter, sort and page through units, and a card for each.
// Data stands in the page (a page opened from a disk may not fetch), thumbnails are one picture.
// A card's address is the page's with #unit-NETWORK-LAYER-NUMBER.
(function () {
  "use strict";
  const { element } = window.xailib;
  const PAGE = 50;
  const [NETWORK, LAYER, UNIT, CONCEPT, SCORE, CERTIFIED, IMAGES, HISTOGRAM, FACTS] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

  function start(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const { rows, words } = data;
    const networks = data.networks.map(([name]) => name), measures = data.networks.map(([, measure]) => measure);
    for (const row of rows) for (const column of [LAYER, CONCEPT]) row[column] = words[row[column]] ?? "";
    const anchor = (row) => `unit-${networks[row[NETWORK]]}-${row[LAYER]}-${row[UNIT]}`.replace(/[^\w.-]+/g, "_");
    const places = [...new Set(rows.map((row) => `${networks[row[NETWORK]]}, ${row[LAYER]}`))];
    const state = { words: "", place: "", column: 4, down: true, page: 0 };
    const said = rows.map((row) => (row[CERTIFIED] ? row[CONCEPT] : data.none));
    const keys = rows.map((row, index) => `${said[index]} ${networks[row[NETWORK]]} ${row[LAYER]} ${row[UNIT]}`.toLowerCase());
    const byAnchor = new Map(rows.map((row, index) => [anchor(row), index]));

    const search = element("input", {
      type: "search", placeholder: "concept, such as dog", "aria-label": "Search concepts",
      oninput: (event) => update({ words: event.target.value.toLowerCase(), page: 0 }),
    });
    const layer = element("select", {
      "aria-label": "Layer", onchange: (event) => update({ place: event.target.value, page: 0 }),
    }, element("option", { value: "" }, "all layers"),
      ...places.map((name) => element("option", { value: name }, name)));
    const count = element("span", { role: "status" });
    const turn = (by) => { update({ page: state.page + by }); table.scrollTop = 0; };
    const back = element("button", { type: "button", onclick: () => turn(-1) }, "‹ previous");
    const next = element("button", { type: "button", onclick: () => turn(1) }, "next ›");
    const heads = ["network", "layer", "unit", "concept", "score"].map((name, column) => {
      const button = element("button", { type: "button", onclick: () => update({
        column, down: state.column === column ? !state.down : column === SCORE, page: 0 }) }, name);
      return element("th", { scope: "col" }, button);
    });
    const body = element("tbody", {});
    const table = element("div", { class: "xailib-table", tabindex: "0", role: "region", "aria-label": "Units" },
      element("table", {}, element("thead", {}, element("tr", {}, ...heads,
        element("th", { scope: "col" }, "most activating photographs"))), body));
    const card = element("section", { class: "unit-card", "aria-live": "polite", tabindex: "-1" });

    function picture(index) {
      const [name, place] = data.images[index];
      const label = name.replace(/^n\d+_|\/.*/g, "").replaceAll("_", " ");  // its class
      if (place < 0) return element("span", { class: "photograph" }, label);
      const x = (place % data.columns) * data.thumb, y = Math.floor(place / data.columns) * data.thumb;
      return element("span", { class: "thumb", role: "img", "aria-label": name, style:
        `width:${data.thumb}px;height:${data.thumb}px;background-image:url("${box.dataset.sheet}");background-position:-${x}px -${y}px` });
    }

    // Those that are said in words, once each.
    function pictures(images) {
      const shown = images.map(picture), counts = new Map();
      for (const one of shown) if (one.className === "photograph") counts.set(one.textContent, (counts.get(one.textContent) ?? 0) + 1);
      return [...shown.filter((one) => one.className !== "photograph"),
        ...[...counts].map(([label, n]) => element("span", { class: "photograph" }, n > 1 ? `${label} × ${n}` : label))].flatMap((one) => [one, " "]);
    }

    function bars(counts) {
      const most = Math.max(...counts);
      return element("div", { class: "histogram", role: "img",
        "aria-label": `Activations in ${counts.length} equal bins from least to greatest: ${counts.join(", ")} images` },
        ...counts.map((n) => element("span", { style: `height:${n ? Math.max(2, 100 * Math.sqrt(n / most)) : 0}%` })));
    }

    function open(index) {
      const row = rows[index];
      const facts = data.facts[row[NETWORK]].map(([name, inWords], k) => [name, inWords ? words[row[FACTS][k]] : row[FACTS][k]])
        .filter(([, value]) => value !== null && value !== undefined && value !== "");
      card.replaceChildren(
        element("h3", { id: anchor(row) }, `${networks[row[NETWORK]]}, ${row[LAYER]}, unit ${row[UNIT]}: ${said[index]}`),
        element("dl", {}, ...facts.flatMap(([name, value]) =>
          [element("dt", {}, name), element("dd", {}, String(value))])),
        ...(row[HISTOGRAM].length ? [element("p", {}, "Activations, least to greatest (heights: square root of the number of images)"), bars(row[HISTOGRAM])] : []),
        element("p", {}, "Most activating photographs: "), element("p", {}, ...row[IMAGES].flatMap((i) => [picture(i), " "])));
    }

    function follow() {
      const index = byAnchor.get(decodeURIComponent(location.hash.slice(1)));
      if (index === undefined) return;
      open(index);
      card.scrollIntoView({ block: "start" });
      card.focus({ preventScroll: true });
    }

    function update(change) {
      Object.assign(state, change);
      let found = rows.map((_, index) => index).filter((index) =>
        (!state.place || `${networks[rows[index][NETWORK]]}, ${rows[index][LAYER]}` === state.place) && keys[index].includes(state.words));
      const sign = state.down ? -1 : 1, by = state.column;
      const measure = (index) => measures[rows[index][NETWORK]];
      found.sort((a, b) => {
        const left = rows[a][by], right = rows[b][by];
        const sure = by === SCORE || by === CONCEPT ? rows[b][CERTIFIED] - rows[a][CERTIFIED] : 0;
        const apart = by === SCORE ? measure(a).localeCompare(measure(b)) : 0;
        return sure || apart || sign * (left < right ? -1 : left > right ? 1 : 0) || a - b;
      });
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      state.page = Math.min(Math.max(state.page, 0), pages - 1);
      back.disabled = state.page === 0;
      next.disabled = state.page === pages - 1;
      heads.forEach((head, column) => head.setAttribute("aria-sort",
        column !== state.column ? "none" : state.down ? "descending" : "ascending"));
      count.textContent = found.length
        ? `${found.length} of ${rows.length} units, page ${state.page + 1} of ${pages}`
        : `0 of ${rows.length} units: no concept contains these words`;
      body.replaceChildren(...found.slice(state.page * PAGE, (state.page + 1) * PAGE).map((index) => {
        const row = rows[index];
        return element("tr", { class: row[CERTIFIED] ? "" : "unsure" }, element("td", {}, networks[row[NETWORK]]),
          element("td", {}, row[LAYER]), element("td", {}, element("a", { href: `#${anchor(row)}` }, String(row[UNIT]))),
          element("td", {}, said[index]), element("td", {}, `${measures[row[NETWORK]]} ${row[SCORE].toFixed(3)}`.trim()),
          element("td", {}, ...pictures(row[IMAGES])));
      }));
    }

    box.append(element("div", { class: "unit-controls" }, search, layer, back, next, count), table, card);
    update({});
    window.addEventListener("hashchange", follow);
    follow();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".unit-browser").forEach(start));
})();
