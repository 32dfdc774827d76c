// Search: the report's pages stand before the API's modules, and what is shown of a page has no LaTeX.
// From a disk pages cannot be fetched: there, each hit shows how its section begins (summaries.js).
// Sphinx puts this in front of its own search (html_search_scorer).
var Scorer = {
  score([page, , , , score]) { return page.startsWith("book/api") ? score / 100 - 50 : score; },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};

if (location.protocol === "file:") {
  const root = document.documentElement.dataset.content_root;
  const made = new Promise((resolve) => {
    document.head.append(Object.assign(document.createElement("script"), { src: `${root}_static/summaries.js`, onload: resolve }));
  });
  window.fetch = (address) => made.then(() => {
    const { pathname } = new URL(address, location), main = document.createElement("div");
    main.setAttribute("role", "main");
    const [, begun] = Object.entries(window.xailib.summaries).find(([page]) => pathname.endsWith(`/${page}`)) ?? [, {}];
    for (const [id, textContent] of Object.entries(begun)) main.append(Object.assign(document.createElement("p"), { id, textContent }), " ");
    return new Response(main.outerHTML);
  });
}

document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const whole = Search.htmlToText;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    page.querySelectorAll(".math, script, style, .headerlink, .cell_input, .xailib-table").forEach((part) => part.remove());
    const known = anchor && page.querySelector(anchor) ? anchor : "";
    return whole(page.documentElement.outerHTML, known) || " ";
  };
});
