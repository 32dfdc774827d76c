// Search: the report's pages stand before the API's modules, and what is shown of a page has no LaTeX.
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

document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const whole = Search.htmlToText;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    page.querySelectorAll(".math, script, style, .headerlink, .cell_input, .xailib-table").forEach((part) => part.remove());
    return whole(page.documentElement.outerHTML, anchor);
  };
});
