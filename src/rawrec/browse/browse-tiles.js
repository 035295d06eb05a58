"use strict";
// Items as tiles and strips of them, lists that are merged, and why an item is in one.
(() => {
  const { make, words, whole, number } = browse;

  const shot = (item, side, field) => {
    const image = make("img.shot", { alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.replaceWith(blank(item)));
    browse.picture(image, item, side, field);
    return image;
  };
  const blank = (item) => make("div.words", {}, words(browse.titleOf(item), "span"));
  browse.shot = (item, side, field) => (browse.fact(item).picture ? shot(item, side, field) : blank(item));

  /** An item. href: where it leads; null: nowhere. press: what a click does instead. note: a line above its title; hit: why it is marked. */
  browse.tile = (item, { note = "", hit = "", mark = "", href, press, pressed, remove } = {}) => {
    const fact = browse.fact(item), title = browse.titleOf(item);
    const caption = make("figcaption", {},
      note && make("i", {}, note), hit && make("i.taken", {}, hit),
      words(title, "span"));
    const inner = [browse.shot(item), caption];
    const name = `${title}${fact.title ? ` (${browse.shown(item)})` : ""}${fact.values ? `; ${fact.values}` : ""}`;
    const body = press
      ? make("button.face", { type: "button", title: name, "aria-pressed": String(Boolean(pressed)), onclick: press }, inner)
      : make("a.face", { href: href || browse.to(["item", item]), title: name }, inner);
    const classes = ["tile", hit && "hit", mark, pressed && "chosen"].filter(Boolean).join(".");
    const cross = remove && make("button.cross", { type: "button", "aria-label": `Remove ${title}`, onclick: remove }, "×");
    return make(`figure.${classes}`, { "data-item": item }, body, cross);
  };

  browse.tiles = (all) => {
    const row = make("div.tiles", {}, all);
    row.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const faces = [...row.querySelectorAll(".face")], at = faces.indexOf(document.activeElement);
      if (!step || at < 0 || !faces[at + step]) return;
      event.preventDefault();
      faces[at + step].focus();
    });
    return row;
  };

  /** A named row of tiles; of more than `most` the last ones (or first, with `first`) until a button is pressed. */
  browse.strip = (name, all, { most = 16, first = false, empty = "none", told = "" } = {}) => {
    const place = make("div");
    const fill = (whole_) => {
      const some = whole_ || all.length <= most ? all : first ? all.slice(0, most) : all.slice(-most);
      place.replaceChildren(all.length ? browse.tiles(some) : make("p.muted", {}, empty));
      if (some.length < all.length) {
        place.append(make("button.more", { type: "button", onclick: () => fill(true) }, `Show all ${whole(all.length)}`));
      }
    };
    fill(false);
    const head = make("h3", {}, name, told && make("span.muted", {}, told));
    return make("section.strip-of", {}, head, place);
  };

  browse.trouble = (error) => make("p.trouble", { role: "alert" }, browse.shown(error.message));

  /** A place that is filled when the answer is there. */
  browse.later = (promise, fill, signal) => {
    const place = make("div", { "aria-busy": "true" }, make("p.muted", {}, "…"));
    promise.then((answer) => fill(answer), (error) => {
      if (error instanceof browse.Refused) return make("p.muted", {}, `${browse.shown(error.message).replace(/^by='\w*': /, "")}.`.replace(/([.!?])\.$/, "$1"));
      if (error.name !== "AbortError") throw error;
      return make("p.muted");
    }).then((node) => {
      if (signal && signal.aborted) return;
      place.removeAttribute("aria-busy");
      place.replaceChildren(...[node].flat());
    });
    return place;
  };

  // ------------------------------------------------------------------------------------------------------------- why
  const PARTS = {
    ids: "who it is and which items: ids", content: "pictures and words: content", history: "what was taken before: history",
    popularity: "how often it is taken: popularity",
  };
  const bar = (value, most) => {
    const share = most > 0 ? Math.abs(value) / most : 0;
    const node = make("span.beam", { "aria-hidden": "true" }, make(value < 0 ? "i.less" : "i.more-of"));
    node.firstChild.style.width = `${50 * share}%`;
    return node;
  };

  /** Why an item is in a list: what its score loses without parts of the model, and what of the history it is close to. */
  browse.why = (one, measure) => {
    const points = (value) => (measure === "probability" ? `${value < 0 ? "−" : "+"}${number(Math.abs(100 * value), 1)} points` : `${value < 0 ? "" : "+"}${number(value)}`);
    const parts = Object.entries(one.parts || {});
    const most = Math.max(...parts.map(([, value]) => Math.abs(value)), 0);
    const rows = parts.map(([name, value]) => make("tr", {},
      make("th", { scope: "row" }, PARTS[name] || name), make("td", {}, bar(value, most)), make("td", {}, points(value))));
    const by = one.by === "attention" ? "attention" : "cosine";
    const near = (one.because || []).map(([item, weight]) => browse.tile(item, { note: by === "attention" ? `${number(100 * weight, 1)} %` : number(weight, 2) }));
    return [
      make("p", {}, "Score ", make("b", {}, browse.score(one.score, measure)), " · ", make("a", { href: browse.to(["item", one.item]) }, "open the item")),
      rows.length ? make("table.parts-of-score", {}, make("caption", {}, "What the score owes to each part (it is this much less without it; the parts do not add up)"), make("tbody", {}, rows)) : null,
      near.length ? browse.strip(by === "attention" ? "Of the history the model attends most to" : "Nearest of the history", near, { first: true, told: by === "attention" ? "share of the attention" : "cosine" })
        : make("p.muted", {}, one.because ? "Nothing of the history stands out." : "No reasons are known."),
    ];
  };

  /** Tiles of a list, of which one at a time says why. later: item -> why it is marked. */
  browse.listed = (answer, { later = new Map(), name = "Recommended", chosen = "", choose = () => {}, moved } = {}) => {
    const panel = make("div.why", { hidden: true });
    const tiles = answer.items.map((one, place) => {
      const note = [`${place + 1}. ${browse.score(one.score, answer.measure)}`, moved && moved(one.item, place)].filter(Boolean).join(" ");
      return browse.tile(one.item, { note, hit: later.get(one.item), pressed: one.item === chosen, press: () => show(one.item === panel.dataset.item ? "" : one.item).scrollIntoView({ block: "nearest" }) });
    });
    const strip = browse.strip(name, tiles, { most: 100, empty: "The list is empty.", told: answer.items.length ? "press one for its reasons" : "" });
    const show = (item) => {
      const one = answer.items.find((other) => other.item === item);
      panel.hidden = !one;
      panel.dataset.item = one ? item : "";
      for (const tile of tiles) {
        const is = Boolean(one) && tile.dataset.item === item;
        tile.classList.toggle("chosen", is);
        tile.querySelector(".face").setAttribute("aria-pressed", String(is));
      }
      if (one) panel.replaceChildren(make("h4", {}, "Why ", words(browse.titleOf(item))), ...browse.why(one, answer.measure).filter(Boolean));
      choose(one ? item : "");
      return panel;
    };
    if (chosen) show(chosen);
    return [strip, answer.told && make("p.muted", {}, browse.shown(answer.told)), panel].filter(Boolean);
  };

  /** Two lists merged by item: places in both, how far each moved, what is only in one. */
  browse.merged = (one, other, names) => {
    const places = [one, other].map((list) => new Map(list.items.map((entry, place) => [entry.item, place + 1])));
    const [mine, theirs] = places;
    const all = [...new Set([...mine.keys(), ...theirs.keys()])];
    const best = (item) => Math.min(mine.get(item) ?? 1e9, theirs.get(item) ?? 1e9);
    all.sort((a, b) => best(a) - best(b) || (mine.get(a) ?? 1e9) - (mine.get(b) ?? 1e9));
    const both = all.filter((item) => mine.has(item) && theirs.has(item)).length;
    const change = (item) => {
      const [from, to] = [mine.get(item), theirs.get(item)];
      if (from === undefined) return make("td.only", {}, `only ${names[1]}`);
      if (to === undefined) return make("td.only", {}, `only ${names[0]}`);
      const by = from - to;
      return by === 0 ? make("td", {}, "same place") : make(by > 0 ? "td.up" : "td.down", {}, `${by > 0 ? "▲" : "▼"} ${Math.abs(by)}`);
    };
    const rows = all.map((item) => make("tr", {},
      make("th", { scope: "row" }, make("a.row-item", { href: browse.to(["item", item]) }, browse.shot(item, 88), words(browse.titleOf(item), "span"))),
      make("td", {}, mine.get(item) ? String(mine.get(item)) : "–"), make("td", {}, theirs.get(item) ? String(theirs.get(item)) : "–"), change(item)));
    return make("section", {},
      make("p.muted", {}, `${whole(both)} of ${browse.plural(all.length, "item")} stand in both lists; ${whole(mine.size - both)} only in ${names[0]}, ${whole(theirs.size - both)} only in ${names[1]}. A place up is one nearer to the first in ${names[1]}.`),
      make("div.scroll", {}, make("table.merged", {},
        make("thead", {}, make("tr", {}, ["Item", names[0], names[1], "Move"].map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, rows))));
  };
})();
