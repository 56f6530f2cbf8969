// Sections fold; a link to one opens it, and so does print.
const all = (what, of = document) => [...of.querySelectorAll(what)];
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", unfold);
all("nav a").forEach(link => link.onclick = () => setTimeout(unfold));
unfold();
all(".contents").forEach(contents => contents.open = matchMedia("(min-width: 64em)").matches);
addEventListener("beforeprint", () => all("details").forEach(fold => {
  fold.dataset.folded = fold.open ? "" : "yes";
  fold.open = true;
}));
addEventListener("afterprint", () => all("details[data-folded=yes]").forEach(fold => fold.open = false));

// What a column means stands below its button.
let asked;
all(".what").forEach(button => button.addEventListener("click", () => asked = button));
all("[popover].meaning").forEach(meaning => meaning.addEventListener("toggle", () => {
  const button = asked.getBoundingClientRect();
  meaning.style.left = `${Math.max(8, Math.min(button.left, innerWidth - meaning.offsetWidth - 8))}px`;
  meaning.style.top = `${Math.max(8, Math.min(button.bottom + 4, innerHeight - meaning.offsetHeight - 8))}px`;
}));

// Tables are sorted by their headings: by numbers where a column has some. Rows without one come last.
function key(row, column) {
  const cell = row.cells[column], text = cell.textContent.trim();
  const found = /^[<>]?\s*([-+]?[\d.,]+(e-?\d+)?)%?(?=[\s(]|$)/.exec(text);  // no date, no code
  return { number: found ? parseFloat(found[1].replaceAll(",", "")) : NaN, text };
}
all("th .sort").forEach(button => button.onclick = () => {
  const heading = button.closest("th"), table = heading.closest("table"), column = heading.cellIndex;
  const falling = heading.getAttribute("aria-sort") === "ascending";
  all("th", table.tHead).forEach(other => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map(row => ({ row, ...key(row, column) }));
  const numbers = keyed.some(one => !isNaN(one.number)), sign = falling ? -1 : 1;
  keyed.sort((a, b) => {
    if (!numbers) return sign * a.text.localeCompare(b.text, "en");
    return isNaN(a.number) - isNaN(b.number) || sign * (a.number - b.number);
  });
  table.tBodies[0].append(...keyed.map(one => one.row));
});

// Words in the field of a table choose rows that hold all of them.
all("input[data-rows]").forEach(input => input.oninput = () => {
  const words = input.value.toLowerCase().split(/\s+/);
  for (const row of document.getElementById(input.dataset.rows).tBodies[0].rows)
    row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
});
