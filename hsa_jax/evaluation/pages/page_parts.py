"""Style sheet and script of the HTML report."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea;
  --back: #f5f7f9; --link: #0b5cad; --good: #56b4e9; --bad: #e69f00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #161b22; --ink: #e3e8ee; --soft: #9aa7b5; --line: #303a46;
    --back: #0e1217; --link: #7cb8f5;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
    sans-serif;
  display: grid; grid-template-columns: 15rem minmax(0, 1fr);
}
nav {
  position: sticky; top: 0; height: 100vh; overflow-y: auto;
  padding: 2rem 1rem; border-right: 1px solid var(--line); font-size: 13px;
}
nav a {
  display: block; padding: .2rem .4rem; color: var(--soft);
  text-decoration: none; border-radius: 4px; overflow-wrap: anywhere;
}
nav a:hover, nav a:focus-visible {
  color: var(--link); background: var(--paper);
}
nav .l2 { margin-top: .7rem; font-weight: 600; color: var(--ink); }
nav .l3 { padding-left: 1.1rem; }
main { padding: 1.5rem 2.5rem 4rem; max-width: 78rem; }
h1 { font-size: 1.7rem; margin: .4rem 0 1rem; }
h2 {
  font-size: 1.3rem; margin: 2.6rem 0 .8rem; padding-top: .8rem;
  border-top: 1px solid var(--line);
}
h3 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
p { max-width: 65rem; color: var(--soft); }
code { font-size: .92em; color: var(--ink); }
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem;
  margin: 0; font-size: 14px;
}
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.table {
  overflow-x: auto; margin: .8rem 0 1.2rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: 8px; width: fit-content;
  max-width: 100%;
}
table {
  border-collapse: collapse; font-size: 13.5px;
  font-variant-numeric: tabular-nums;
}
th, td {
  padding: .38rem .8rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover td:not(.score) {
  background: color-mix(in srgb, var(--link) 7%, transparent);
}
th { padding: 0; color: var(--soft); }
th button {
  font: inherit; font-weight: 600; color: inherit; background: none; border: 0;
  padding: .45rem .8rem; cursor: pointer; width: 100%; text-align: left;
}
th button::after { content: " \\2195"; opacity: .35; }
th[aria-sort="ascending"] button::after { content: " \\2191"; opacity: 1; }
th[aria-sort="descending"] button::after { content: " \\2193"; opacity: 1; }
td.score {
  background: color-mix(in srgb,
    color-mix(in srgb, var(--good) calc(var(--share) * 100%), var(--bad)) 32%,
    transparent);
}
figure { margin: 1rem 0 1.6rem; }
figure img {
  max-width: 100%; height: auto; background: #fff; padding: .6rem;
  border: 1px solid var(--line); border-radius: 8px;
}
figcaption { font-size: 13px; color: var(--soft); margin-top: .3rem; }
@media (max-width: 60rem) {
  body { display: block; }
  nav { position: static; height: auto; border-right: 0; padding: 1rem; }
  main { padding: 1rem; }
}
@media print { nav { display: none; } body { display: block; } }
"""

# A click on a header sorts by it, a second click the other way round. Cells
# with a value are sorted by it, others by their text; empty cells stay last.
SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.querySelectorAll("th")];
  const key = (row, i) => {
    const cell = row.cells[i];
    if (cell.textContent === "") return null;
    return "value" in cell.dataset ? Number(cell.dataset.value)
      : cell.textContent;
  };
  const order = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b));
  };
  heads.forEach((head, i) => head.firstChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((h) => h.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows];
    rows.sort((r, s) => order(key(r, i), key(s, i), up ? 1 : -1));
    body.append(...rows);
  }));
}
document.documentElement.dataset.ready = "yes";
"""
