"use strict";
(() => {
  const make = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const whole = (number) => number.toLocaleString("en-US");

  // ------------------------------------------------------------------------------------------------ tables that sort
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

  // --------------------------------------------------------------------------------------------------- items by row
  const block = document.getElementById("catalogue");
  const known = block ? JSON.parse(block.textContent) : null;
  const [ID, TITLE, LACKS, TRAIN, TAKEN, LISTS, SHOT, VALUES, PLACE] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const titleOf = (item) => item[TITLE] || item[ID];
  const buckets = known ? Object.entries(known.buckets).sort((a, b) => a[1] - b[1]) : [];
  const bucketOf = (count) => buckets.filter(([, least]) => count >= least).pop()[0];
  const lacking = (item) => known.fields.filter((_, bit) => (item[LACKS] >> bit) & 1);
  const pictured = (item) => known.fields.slice(0, known.images).some((_, bit) => !((item[LACKS] >> bit) & 1));
  const shot = (item) => {
    const cell = item[PLACE] ? item[PLACE][3] : -1;
    if (item[SHOT]) return make("div", `shot ${item[SHOT]}`);
    if (cell < 0) return null;
    const node = make("div", "shot sheet");
    const across = known.across, last = Math.max(across - 1, 1);
    node.style.backgroundSize = `${across * 100}% ${across * 100}%`;
    node.style.backgroundPosition = `${(cell % across) / last * 100}% ${Math.floor(cell / across) / last * 100}%`;
    return node;
  };
  const tile = (item, note, hit) => {
    const figure = make("figure", hit ? "tile hit" : "tile");
    const picture = shot(item);
    if (picture) { picture.setAttribute("role", "img"); picture.setAttribute("aria-label", titleOf(item)); figure.append(picture); }
    else { const words = make("div", "words"); words.append(make("span", "", titleOf(item))); figure.append(words); }
    const caption = make("figcaption");
    caption.title = `${titleOf(item)} (${item[ID]})`;
    if (note) caption.append(make("i", "", note), " ");
    if (picture) caption.append(titleOf(item));
    figure.append(caption);
    return figure;
  };

  // --------------------------------------------------------------------------------------------------- choose a user
  const people = [...document.querySelectorAll(".person")];
  if (people.length > 1) {
    const bar = make("div", "choice");
    const label = make("label", "", "Show ");
    const select = make("select");
    select.append(new Option("all users shown", "all"));
    const groups = new Map();
    people.forEach((person, place) => {
      const [name, told] = [...person.querySelector("h3").childNodes].map((node) => node.textContent.trim());
      const group = person.dataset.group || "";
      if (!groups.has(group)) {
        const set = make("optgroup");
        set.label = group || "users";
        groups.set(group, set);
        select.append(set);
      }
      groups.get(group).append(new Option(`${name}: ${told}`, place));
    });
    const place = make("div");
    const heads = [...document.querySelectorAll(".group")];
    const show = () => {
      place.replaceChildren();
      heads.forEach((head) => { head.hidden = select.value !== "all"; });
      people.forEach((person, at) => { person.hidden = select.value !== "all" && select.value !== String(at); });
    };
    select.addEventListener("change", show);
    label.append(select);
    bar.append(label);
    const further = document.getElementById("further");
    if (further && known) {
      const { users, by } = JSON.parse(further.textContent);
      const strip = (name, tiles) => {
        const row = make("div", "strip"), all = make("div", "tiles");
        all.append(...tiles);
        row.append(make("span", "", name), all);
        return row;
      };
      const section = ([id, judged, history, recommended, later, count]) => {
        const node = make("section", "person"), head = make("h3", "", `User ${id} `);
        const hits = recommended.filter((item) => later.includes(item));
        const told = judged === null || !by ? "" : `, ${by} ${judged.toFixed(3)}`;
        head.append(make("span", "muted", `${hits.length} of ${recommended.length} recommended taken; ${whole(count)} taken in the test part${told}`));
        node.append(head,
          strip("History, the latest last", history.map((item) => tile(known.items[item]))),
          strip("Recommended, the best first", recommended.map((item) => tile(known.items[item], "", later.includes(item)))),
          strip("Taken in the test part", later.map((item) => tile(known.items[item], "", recommended.includes(item)))));
        return node;
      };
      if (users.length) {
        const find = make("label", "", "or another user ");
        const input = make("input"), list = make("datalist");
        list.id = "users";
        list.append(...users.map(([id]) => new Option("", id)));
        input.setAttribute("list", "users");
        input.placeholder = `id, one of ${whole(users.length)}`;
        input.addEventListener("input", () => {
          const found = users.find(([id]) => id === input.value.trim());
          if (!found) return;
          select.value = "0"; show(); people[0].hidden = true; select.selectedIndex = -1;
          place.replaceChildren(section(found));
        });
        find.append(input, list);
        bar.append(find);
      }
    }
    (heads[0] || people[0]).before(bar, place);
    select.value = "0";
    show();
  }

  // ------------------------------------------------------------------------------------------------------------- map
  const chart = document.querySelector(".map svg");
  let point = () => {};
  if (chart && known) {
    const frame = chart.parentElement;
    const placed = known.items.filter((item) => item[PLACE]);
    const card = make("div", "about"), ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    card.hidden = true;
    ring.setAttribute("class", "ring");
    ring.setAttribute("r", 13);
    frame.append(card);
    point = (item) => {
      if (!item || !item[PLACE]) { card.hidden = true; ring.remove(); return; }
      const [x, y, kind] = item[PLACE];
      const box = chart.viewBox.baseVal, size = chart.getBoundingClientRect();
      ring.setAttribute("cx", x);
      ring.setAttribute("cy", y);
      chart.append(ring);
      card.replaceChildren();
      const picture = shot(item);
      if (picture) card.append(picture);
      const words = make("div");
      words.append(make("b", "", titleOf(item)), make("span", "muted", item[ID]));
      const name = document.querySelectorAll(".map-legend li")[kind];
      if (name) words.append(make("span", "", name.dataset.name));
      words.append(make("span", "muted", `${bucketOf(item[TRAIN])}: ${whole(item[TRAIN])} training rows`));
      card.append(words);
      card.hidden = false;
      const left = x / box.width * size.width, top = y / box.height * size.height;
      card.style.left = `${Math.max(0, Math.min(size.width - card.offsetWidth, left + 18))}px`;
      card.style.top = `${Math.max(0, Math.min(size.height - card.offsetHeight, top + 18))}px`;
    };
    const near = (event) => {
      const box = chart.viewBox.baseVal, size = chart.getBoundingClientRect();
      const x = (event.clientX - size.left) / size.width * box.width, y = (event.clientY - size.top) / size.height * box.height;
      let best = null, least = (26 * box.width / size.width) ** 2;
      for (const item of placed) {
        const away = (item[PLACE][0] - x) ** 2 + (item[PLACE][1] - y) ** 2;
        if (away < least) { least = away; best = item; }
      }
      point(best);
    };
    chart.addEventListener("pointermove", near);
    chart.addEventListener("pointerdown", near);
    chart.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") point(null); });
  }

  // ---------------------------------------------------------------------------------------------------- find an item
  const place = document.getElementById("find-item");
  if (place && known) {
    const label = make("label", "choice", "Find an item "), input = make("input"), found = make("div", "found");
    input.type = "search";
    input.placeholder = "words of its title, or its id";
    label.append(input);
    place.append(label, found);
    const texts = known.items.map((item) => `${item[ID]} ${titleOf(item)}`.toLowerCase());
    const line = (item) => {
      const row = make("div", "item"), words = make("div"), less = lacking(item);
      const picture = shot(item) || make("div", pictured(item) ? "shot" : "shot none");
      words.append(make("b", "", titleOf(item)));
      if (item[TITLE]) words.append(make("span", "muted", item[ID]));
      if (item[VALUES]) words.append(make("span", "", item[VALUES]));
      const lists = known.lists ? `; in ${whole(item[LISTS])} of ${whole(known.lists)} lists` : "";
      words.append(make("span", "muted", `${bucketOf(item[TRAIN])}: ${whole(item[TRAIN])} training rows; taken ${whole(item[TAKEN])} × in the test part${lists}`));
      words.append(make("span", less.length ? "down" : "up", less.length ? `missing: ${less.join(", ")}` : "nothing is missing"));
      row.append(picture, words);
      row.addEventListener("mouseenter", () => point(item));
      return row;
    };
    const search = () => {
      const wanted = input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
      found.replaceChildren();
      if (!wanted.length) { point(null); return; }
      const hits = known.items.filter((item, at) => wanted.every((word) => texts[at].includes(word)));
      hits.sort((a, b) => b[TRAIN] - a[TRAIN]);
      found.append(make("p", "muted", `${whole(hits.length)} found${hits.length > 8 ? ", the 8 with most training rows" : ""}`), ...hits.slice(0, 8).map(line));
      point(hits[0]);
    };
    input.addEventListener("input", search);
  }
})();
