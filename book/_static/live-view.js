// The live view of one photograph: any class, LIME's settings, and how masks are made of the maps.
(function () {
  "use strict";
  const { xailib } = window, { element, live } = xailib;
  const REFITS = 100, BATCH = 10; // of the bootstrap, and how many before the page may draw
  // As in style.py.
  const COLOURS = { lime: "#E69F00", gradcam: "#0072B2", ablationcam: "#009E73", both: "#FFFFFF" };
  const NAMES = { gradcam: "Grad-CAM (= CAM)", ablationcam: "AblationCAM" };
  const RULES = { lime: "as many pixels as LIME's mask", area: "a share of the view", threshold: "above a threshold" };
  const SCALES = {
    heat: "0000040b0724210c4a3d096557106e71196e8a226aa32c61bc3754d24644e45a31f1731df98e09fcac11f9cb35f2ea69fcffa4",
    signed: "0530611752902a71b23f8ec06bacd19bc9e0c2ddece0ecf3f7f6f6fbe5d8fbccb4f5aa89e48066d05548ba2832930e2667001f",
  };
  function rgb(hex) { return [0, 2, 4].map((at) => parseInt(hex.replace("#", "").slice(at, at + 2), 16)); }

  // A scale's colours, from one end to the other.
  const SHADES = 256;
  function shades(text) {
    const stops = text.match(/.{6}/g).map(rgb), found = new Float32Array(3 * SHADES);
    for (let i = 0; i < SHADES; i++) {
      const place = (i / (SHADES - 1)) * (stops.length - 1), from = Math.min(Math.floor(place), stops.length - 2);
      for (let c = 0; c < 3; c++) found[3 * i + c] = stops[from][c] + (place - from) * (stops[from + 1][c] - stops[from][c]);
    }
    return found;
  }
  // Maps over the photograph in gray, as `heat` and `signed_heat` of style.py have them: where a
  // value is on the scale, how much of its colour is seen, and the gray below.
  const LOOKS = {
    heat: { colours: shades(SCALES.heat), at: (value) => value, strength: (value) => 0.25 + 0.6 * value, dark: 0.15, light: 0.75 },
    signed: { colours: shades(SCALES.signed), at: (value) => (value + 1) / 2, strength: (value) => 0.2 + 0.65 * Math.abs(value), dark: 0.2, light: 0.7 },
  };

  const number = (value, digits = 2) => {
    if (Number.isNaN(value)) return "–";
    const said = Math.abs(value) > 0 && Math.abs(value) < 10 ** -digits ? value.toExponential(1) : value.toFixed(digits);
    return said.replace("-", "−");
  };
  const percent = (value) => `${Math.round(100 * value)}\u00a0%`;

  function panel(title) {
    const canvas = element("canvas", { role: "img", "aria-label": title });
    const bar = element("p", { class: "live-bar" }), words = element("p", { class: "explorer-said" });
    return { box: element("div", { class: "live-panel" }, canvas, bar, words), canvas, bar, words };
  }

  function paint(into, photo, kind, values, title, ends, unit) {
    const { colours, at, strength, dark, light } = LOOKS[kind], tints = new Float32Array(4 * values.length);
    for (let i = 0; i < values.length; i++) {
      const from = 3 * Math.round((SHADES - 1) * Math.min(Math.max(at(values[i]), 0), 1)), seen = strength(values[i]);
      for (let c = 0; c < 3; c++) tints[4 * i + c] = seen * colours[from + c];
      tints[4 * i + 3] = 1 - seen;
    }
    draw(into.canvas, photo, tints, dark, light);
    into.canvas.setAttribute("aria-label", `${title}, ${unit}: ${ends.join(" to ")}`);
    const stops = SCALES[kind].match(/.{6}/g).map((colour) => `#${colour}`);
    const scale = element("span", { class: "live-scale", style: `background: linear-gradient(to right, ${stops})`, "aria-hidden": "true" });
    into.bar.replaceChildren(ends[0], scale, ends[1]);
    into.words.replaceChildren(element("strong", {}, title), `: ${unit}`);
  }

  // Colours that are there already, and below them as much of the gray as the fourth number says.
  function draw(canvas, photo, tints, dark, light) {
    const { width, height, grays, places } = photo, image = new ImageData(width, height), { data } = image;
    for (let i = 0; i < grays.length; i++) {
      const from = 4 * places[i], ground = 255 * (dark + light * grays[i]) * tints[from + 3];
      data[4 * i] = tints[from] + ground;
      data[4 * i + 1] = tints[from + 1] + ground;
      data[4 * i + 2] = tints[from + 2] + ground;
      data[4 * i + 3] = 255;
    }
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  async function photoOf(shown) {
    const image = new Image();
    image.src = shown.view;
    await image.decode();
    const { naturalWidth: width, naturalHeight: height } = image, canvas = element("canvas", { width, height });
    canvas.getContext("2d").drawImage(image, 0, 0);
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const grays = new Float32Array(width * height), places = new Uint32Array(width * height), times = width / shown.size[1];
    for (let i = 0; i < grays.length; i++) {
      grays[i] = (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 765;
      places[i] = Math.floor(Math.floor(i / width) / times) * shown.size[1] + Math.floor((i % width) / times); // on a map
    }
    return { width, height, grays, places };
  }

  // A control with its name; a slider says its value.
  let controls = 0;
  function control(label, input, shown = () => "") {
    const value = element("span", {}); // an output would take the label
    input.id = `live-${++controls}`;
    const box = element("div", { class: "live-control" }, element("label", { for: input.id }, label, " ", value), input);
    return { box, input, say: () => { value.textContent = shown(input.value); } };
  }
  const slider = (min, max, step) => element("input", { type: "range", min, max, step });
  const select = (entries) => element("select", {}, ...Object.entries(entries).map(([value, label]) => element("option", { value }, label)));

  xailib.liveView = function (name, offered, chosen, changed) {
    const [photograph, network] = [...offered.querySelectorAll("a")].map((link) => link.href);
    const why = offered.querySelector(".why")?.textContent || "";
    const status = element("p", { role: "status", class: "explorer-said" });
    const start = element("button", { type: "button", onclick: () => open() }, network ? "Load the output layer" : "Load LIME's samples");
    const box = element("div", { class: "live", role: "tabpanel", id: `${name}-live`, "aria-label": "Any class, computed in this page", hidden: "" },
      element("p", {}, why || "Heatmaps of every class and LIME of the likeliest ones are computed in this page, without a connection."), start, status);
    let opened = null, refresh = () => {};

    // Asked for by an address, or for an earlier photograph, it is there without another click.
    function show() { if (opened || chosen.has("class") || xailib.liveAsked) open(); }

    function open() {
      xailib.liveAsked = true;
      opened ||= make().catch((error) => { status.textContent = `${error.message}.`; opened = null; });
      opened.then(() => refresh());
    }

    async function make() {
      status.textContent = "Loading …";
      const [shown, shared] = await Promise.all([live.load(photograph, name), network ? live.load(network, "network") : null]);
      const view = viewOf(name, shown, shared, await photoOf(shown), chosen, changed);
      start.remove();
      status.remove();
      box.append(view.box);
      refresh = view.refresh;
    }
    return { box, show };
  };

  function viewOf(name, shown, network, photo, chosen, changed) {
    const { lime } = shown, total = lime.shown.shape[0], superpixels = lime.shown.shape[1];
    const columns = new Map(lime.classes.map(([index], column) => [index, column]));
    const called = new Map(network ? network.names.map((one, index) => [index, one]) : lime.classes);
    const label = (index) => `${called.get(index)} (${index})`;
    const others = [...called.keys()].filter((index) => !columns.has(index)).sort((a, b) => called.get(a).localeCompare(called.get(b)));
    const list = element("datalist", { id: `${name}-classes` }, ...[...columns.keys(), ...others].map((index) => element("option", { value: label(index) })));
    const text = (more) => element("input", { type: "text", list: list.id, autocomplete: "off", ...more });
    const controls = {
      class: control("Class", text({})),
      other: control("Minus class (optional)", text({ placeholder: "none" })),
      ...(network && { heatmap: control("Heatmap", select(NAMES)), rule: control("Heatmap's mask", select(RULES)) }),
      ...(network && { area: control("Share of the view:", slider(1, 100, 1), (value) => `${value}\u00a0%`),
        threshold: control("Threshold:", slider(0, 0.99, 0.01), (value) => number(Number(value))) }),
      features: control("Superpixels in LIME's mask:", slider(1, superpixels, 1), String),
      samples: control("LIME's samples:", slider(Math.min(10, total), total, 1), String),
      width: control("Kernel width:", slider(0.05, 1, 0.01), (value) => number(Number(value))),
      bootstrap: control("Bootstrap LIME's weights", element("input", { type: "checkbox" })),
    };
    const defaults = { class: shown.target, other: "", heatmap: "gradcam", rule: "lime", area: 20, threshold: 0.5,
      features: Math.min(lime.features, superpixels), samples: total, width: 0.25, bootstrap: "" };
    const [heat, weights, masks] = ["Heatmap", "LIME", "Masks"].map(panel);
    const said = element("p", { class: "live-said" });
    const status = element("p", { role: "status", class: "explorer-said" });
    const intervals = element("div", { class: "live-intervals" });
    const reset = element("button", { type: "button", onclick: () => {
      changed(Object.fromEntries(Object.keys(defaults).map((key) => [key, ""])));
      refresh();
    } }, "Reset");
    const box = element("div", {}, element("div", { class: "live-controls" }, ...Object.values(controls).map((one) => one.box), list, reset),
      status, said, element("div", { class: "live-panels" }, ...(network ? [heat.box] : []), weights.box, masks.box), intervals);
    const cache = new Map();
    let latest = 0;

    function classOf(typed) {
      const index = Number(/\((\d+)\)\s*$/.exec(typed)?.[1] ?? (typed.trim() || NaN));
      if (called.has(index)) return index;
      const wanted = typed.trim().toLowerCase();
      return [...called.keys()].find((one) => called.get(one).toLowerCase() === wanted) ?? null;
    }

    function typed(key) {
      const value = controls[key].input.value;
      const index = classOf(value);
      const none = key === "other" && !value.trim();
      status.textContent = index === null && !none ? `No class is called “${value}”: choose one of the list.` : "";
      if (index !== null || none) changed({ [key]: none || (key === "class" && index === shown.target) ? "" : index });
      if (index !== null || none) refresh();
    }

    for (const [key, { input }] of Object.entries(controls)) {
      const words = input.type === "text";
      if (words) input.addEventListener("focus", () => input.select());
      input.addEventListener(words ? "change" : "input", () => {
        if (words) return typed(key);
        const value = input.type === "checkbox" ? (input.checked ? 1 : "") : input.value;
        changed({ [key]: String(value) === String(defaults[key]) ? "" : value });
        return refresh();
      });
    }

    // What the address says, as far as this photograph and network have it.
    function state() {
      const found = Object.fromEntries(Object.entries(defaults).map(([key, value]) => [key, chosen.get(key) ?? value]));
      for (const key of ["class", "other"]) found[key] = classOf(String(found[key]));
      found.class ??= shown.target;
      for (const key of ["area", "threshold", "features", "samples", "width"]) {
        const { input } = controls[key] || {};
        if (!input) continue;
        input.value = Number(found[key]);
        found[key] = Number(input.value); // between the slider's ends
      }
      if (!(found.heatmap in NAMES)) found.heatmap = defaults.heatmap;
      if (!(found.rule in RULES)) found.rule = defaults.rule;
      return found;
    }

    function remembered(key, make) {
      if (!cache.has(key)) {
        if (cache.size > 40) cache.clear();
        cache.set(key, make());
      }
      return cache.get(key);
    }
    const raw = (method, index) => remembered(`${method} ${index}`, () => live.heatmap(method, shown, network, index));
    const model = (index, s) => columns.has(index) && remembered(`lime ${index} ${s.samples} ${s.width}`,
      () => live.ridge(lime, columns.get(index), { count: s.samples, width: s.width }));
    function onPixels(values) {
      const parts = lime.segments.values, found = new Float64Array(parts.length);
      for (let i = 0; i < parts.length; i++) found[i] = values[parts[i]] || 0; // never hidden: no weight
      return found;
    }

    function refresh() {
      const s = state(), mine = ++latest;
      controls.class.input.value = label(s.class);
      controls.other.input.value = s.other === null ? "" : label(s.other);
      controls.bootstrap.input.checked = Boolean(s.bootstrap);
      if (network) {
        controls.heatmap.input.value = s.heatmap;
        controls.rule.input.value = s.rule;
        controls.area.box.hidden = s.rule !== "area";
        controls.threshold.box.hidden = s.rule !== "threshold";
      }
      Object.values(controls).forEach((one) => one.say());
      const versus = s.other === null ? "" : ` minus ${called.get(s.other)}`;
      const map = network && showHeat(s, versus);
      const own = showLime(s, versus);
      showMasks(s, map, own);
      intervals.replaceChildren();
      if (s.bootstrap && own) bootstrap(s, own, mine);
    }

    function showHeat(s, versus) {
      const one = raw(s.heatmap, s.class), map = remembered(`map ${s.heatmap} ${s.class}`, () => live.saliency(one, shown.size));
      const title = `${NAMES[s.heatmap]}, ${called.get(s.class)}${versus}`;
      if (s.other === null) {
        const none = live.highest(one.values) <= 0;
        paint(heat, photo, "heat", map, title, ["0", "1"], none ? "zero everywhere: no cell supports this class" : "relative to its maximum");
      } else {
        const minus = raw(s.heatmap, s.other), values = one.values.map((value, i) => value - minus.values[i]);
        const large = live.enlarged({ values, grid: one.grid }, shown.size), top = Math.max(live.highest(large), -live.lowest(large)) || 1;
        paint(heat, photo, "signed", large.map((value) => value / top), title, [number(-top), number(top)],
          `red speaks for ${called.get(s.class)}, blue for ${called.get(s.other)}; before clipping and scaling`);
      }
      return map;
    }

    function showLime(s, versus) {
      const own = model(s.class, s), minus = s.other === null ? null : model(s.other, s);
      const lacks = [s.class, s.other].filter((index) => index !== null && !columns.has(index)).map((index) => called.get(index));
      const title = `LIME, ${called.get(s.class)}${versus}`;
      const values = !lacks.length && own.map((value, i) => value - (minus ? minus[i] : 0));
      const top = values ? Math.max(live.highest(values), -live.lowest(values)) || 1 : 1;
      paint(weights, photo, "signed", onPixels(values ? values.map((value) => value / top) : []), title, [number(-top, 3), number(top, 3)],
        lacks.length ? `not for ${lacks.join(" and ")}: the samples' probabilities are kept for the ${columns.size} likeliest classes`
          : "a superpixel's weight; red supports, blue opposes");
      weights.bar.hidden = lacks.length > 0;
      return own;
    }

    function showMasks(s, map, own) {
      const empty = new Uint8Array(shown.size[0] * shown.size[1]);
      const one = own ? live.limeMask(lime, live.supporters(own, s.features)) : empty, size = live.area(one);
      const pixels = s.rule === "area" ? Math.round((s.area / 100) * empty.length) : size;
      const other = !map ? empty : s.rule === "threshold" ? live.thresholdMask(map, s.threshold) : live.areaMask(map, pixels);
      const colours = [[0, 0, 0], rgb(COLOURS.lime), rgb(COLOURS[s.heatmap]), rgb(COLOURS.both)], tints = new Float32Array(4 * one.length);
      for (let i = 0; i < one.length; i++) {
        const colour = colours[one[i] + 2 * other[i]], seen = one[i] | other[i] ? 0.65 : 0;
        for (let c = 0; c < 3; c++) tints[4 * i + c] = seen * colour[c];
        tints[4 * i + 3] = 1 - seen;
      }
      draw(masks.canvas, photo, tints, 0.08, 0.5);
      const key = (colour, words) => element("span", { class: "live-key" }, element("i", { style: `background: ${colour}` }), words);
      masks.bar.replaceChildren(...(map && own ? [key(COLOURS.both, "both")] : []), ...(own ? [key(COLOURS.lime, map ? "only LIME" : "LIME")] : []),
        ...(map ? [key(COLOURS[s.heatmap], `only ${NAMES[s.heatmap].split(" ")[0]}`)] : []));
      const areas = `LIME ${percent(size / empty.length)}${map ? `, ${NAMES[s.heatmap].split(" ")[0]} ${percent(live.area(other) / empty.length)}` : ""} of the view`;
      masks.canvas.setAttribute("aria-label", `Masks for ${called.get(s.class)}: ${areas}`);
      masks.words.replaceChildren(element("strong", {}, `Masks, ${called.get(s.class)}`), `: ${areas}`);
      const likely = network ? `${called.get(s.class)} has probability ${number(live.probability(shown, s.class), 3)}. ` : "";
      said.replaceChildren(likely, ...(map && own ? [element("strong", {}, `IoU ${number(live.iou(one, other))}`),
        `; chance level ${number(live.chance(size, live.area(other), empty.length))}, of random masks of the same areas.`] : []));
    }

    // 95 % intervals of the weights from samples drawn with replacement, a few at a time.
    async function bootstrap(s, own, mine) {
      const random = live.generator(0), drawn = [];
      intervals.textContent = "Drawing …";
      while (drawn.length < REFITS) {
        for (let i = 0; i < BATCH; i++) {
          const counts = live.resampled(lime, s.samples, random);
          drawn.push(live.ridge(lime, columns.get(s.class), { count: s.samples, width: s.width, counts }));
        }
        await new Promise((resolve) => { setTimeout(resolve); });
        if (mine !== latest) return;
      }
      const order = live.supporters(own, s.features);
      const ends = order.map((part) => drawn.map((one) => one[part]).sort((a, b) => a - b)).map((all) => [all[Math.round(0.025 * (REFITS - 1))], all[Math.round(0.975 * (REFITS - 1))]]);
      const above = ends.filter(([low]) => low > 0).length;
      const words = `${above} of the ${order.length} selected superpixels have a 95\u00a0% interval above zero (${REFITS} bootstrap samples).`;
      intervals.replaceChildren(element("p", {}, words), chart(order.map((part) => own[part]), ends, words));
    }

    return { box, refresh };
  }

  function chart(values, ends, words) {
    const made = (tag, attributes, ...children) => {
      const one = document.createElementNS("http://www.w3.org/2000/svg", tag);
      Object.entries(attributes).forEach(([key, value]) => one.setAttribute(key, value));
      one.append(...children);
      return one;
    };
    const low = Math.min(0, ...ends.flat()), high = Math.max(...ends.flat(), 1e-9), left = 48, width = 560, height = 150;
    const x = (i) => left + ((i + 0.5) / values.length) * (width - left), y = (value) => 8 + ((high - value) / (high - low)) * (height - 16);
    return made("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words, class: "live-chart" },
      ...[low, 0, high].filter((value, i, all) => all.indexOf(value) === i).flatMap((value) => [
        made("line", { x1: left, x2: width, y1: y(value), y2: y(value), class: value ? "grid" : "zero" }),
        made("text", { x: left - 4, y: y(value) + 4 }, number(value, 3))]),
      ...values.flatMap((value, i) => [
        made("line", { x1: x(i), x2: x(i), y1: y(ends[i][0]), y2: y(ends[i][1]), class: "span" }),
        made("circle", { cx: x(i), cy: y(value), r: 4 })]));
  }
})();
