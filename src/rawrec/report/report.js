"use strict";
(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = (cell.querySelector("b") || cell).textContent.trim().replaceAll("−", "-").replaceAll(",", "");
    const number = parseFloat(text);
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b);
  };
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    if (!table.tHead || table.tBodies.length !== 1 || body.rows.length < 2) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.classList.contains("scale")) return;
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => compare(value(a, column), value(b, column)) * (down ? -1 : 1));
        body.append(...rows);
      };
      head.tabIndex = 0;
      head.setAttribute("role", "button");
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
      });
    });
  }
  const people = [...document.querySelectorAll(".person")];
  if (people.length > 1) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    label.className = "choice";
    select.append(new Option("all users shown", "all"));
    people.forEach((person, place) => {
      const [name, told] = [...person.querySelector("h3").childNodes].map((node) => node.textContent.trim());
      select.append(new Option(`${name}: ${told}`, place));
    });
    const show = () => people.forEach((person, place) => { person.hidden = select.value !== "all" && select.value !== String(place); });
    select.addEventListener("change", show);
    label.append("Show ", select);
    people[0].before(label);
    select.value = "0";
    show();
  }
})();
