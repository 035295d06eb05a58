"use strict";
// What if: another history, or an item that does not exist; the list, the neighbours and the place change at once.
(() => {
  const { make, words, whole, views } = browse;
  const MOST = 200, BYTES = 16 << 20;
  const WAYS = { content: "Nearest by content", image: "Nearest by picture", text: "Nearest by words", "": "Nearest by the model's vectors" };

  /** A field that finds items or users and gives what is pressed to `pick`. */
  const picker = (label, ask, pick, signal) => {
    const input = make("input", { type: "search", autocomplete: "off", placeholder: label }), found = make("div.picks");
    let wait = 0, turn = 0;
    const fill = async () => {
      const mine = (turn += 1), text = input.value.trim();
      if (!text) { found.replaceChildren(); return; }
      try {
        const entries = await ask(text);
        if (mine !== turn) return;
        found.replaceChildren(...(entries.length ? entries.map(([node, value]) => make("button.pick", { type: "button", onclick: () => { input.value = ""; found.replaceChildren(); input.focus(); pick(value); } }, node)) : [make("p.muted", {}, "Nothing is called so.")]));
      } catch (error) {
        if (error.name !== "AbortError" && mine === turn) found.replaceChildren(browse.trouble(error));
      }
    };
    input.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(fill, 150); });
    signal.addEventListener("abort", () => clearTimeout(wait));
    return make("div.picker", {}, make("label", {}, `${label} `, input), found);
  };
  const itemsNamed = (signal) => async (find) => {
    const answer = await browse.ask("items", { body: { find, k: 6 }, signal });
    return answer.found.map((item) => [[browse.shot(item, 88), words(browse.titleOf(item))], item]);
  };
  const usersNamed = (signal) => async (find) => {
    const answer = await browse.ask("users", { query: { find, k: 6 }, signal });
    return answer.users.map(([user]) => [[words(user)], user]);
  };

  const changes = (before) => {
    const places = new Map(before ? before.items.map((one, place) => [one.item, place]) : []);
    return (item, place) => {
      if (!before) return "";
      const from = places.get(item);
      return from === undefined ? "· new" : from === place ? "" : `${from > place ? "· ▲" : "· ▼"}${Math.abs(from - place)}`;
    };
  };

  views.try = async (_, options, signal) => {
    if (browse.data) return [make("h1", {}, "What if"), make("p", {}, "This asks the model, which an exported page does not have: rawrec browse RUN")];
    const runs = browse.about.runs, user = options.get("user") || null;
    const of = Math.min(runs.length - 1, Math.max(0, Number(options.get("of")) || 0)), run = runs[of];
    const base = user === null ? [] : (await browse.ask("user", { query: { user }, signal })).history.map(([item]) => item);
    const kept = browse.json(options.get("history"), null);
    let history = (Array.isArray(kept) ? kept.map(String) : base).slice(-MOST), before = null;
    if (history.length) await browse.ask("facts", { body: { items: history }, signal });

    // ------------------------------------------------------------------------------------------ another history
    const past = make("div"), list = make("div"), who = () => ({ of, ...(user === null ? {} : { user }), ...(run.history ? { history } : {}) });
    const isBase = () => JSON.stringify(history) === JSON.stringify(base);
    const set = (made) => {
      history = made.slice(-MOST);
      browse.keep({ history: isBase() ? "" : JSON.stringify(history) });
      show();
      tryItem();
    };
    let turn = 0;
    const ask = async () => {
      const mine = (turn += 1);
      if (!run.history && user === null) { list.replaceChildren(make("p.muted", {}, "Choose a user: this run knows users by their id and reads no history.")); return; }
      if (run.history && !history.length && user === null) { list.replaceChildren(make("p.muted", {}, "Add an item that was taken, or choose a user.")); return; }
      try {
        const answer = await browse.ask("list", { body: who(), signal });
        if (mine !== turn) return;
        const first = before || (isBase() ? null : await browse.ask("list", { body: { of, ...(user === null ? { history: base.length ? base : history } : { user, history: base }), explain: false }, signal }).catch(() => null));
        if (mine !== turn) return;
        before = first || answer;
        const moved = before === answer ? null : before;
        list.replaceChildren(...browse.listed(answer, { name: "What they would get", moved: changes(moved) }),
          ...(moved ? [make("details", {}, make("summary", {}, "Beside what they got before"), browse.merged(before, answer, ["before", "now"]))] : []));
        browse.say(`A list of ${whole(answer.items.length)} from ${browse.plural(history.length, "item")}`);
      } catch (error) {
        if (error.name !== "AbortError" && mine === turn) list.replaceChildren(browse.trouble(error));
      }
    };
    const show = () => {
      const tiles = history.map((item, place) => browse.tile(item, { remove: () => set(history.filter((__, at) => at !== place)) }));
      past.replaceChildren(browse.strip("History, the latest last", tiles, { most: 40, empty: "Nothing yet." }),
        make("p.links", {}, isBase() ? null : make("button", { type: "button", onclick: () => set(base) }, base.length ? "As it was" : "Remove all")));
      ask();
    };

    // ------------------------------------------------------------------------------- an item that does not exist
    const item = { texts: {}, pictures: {} }, result = make("div.tried"), preview = make("div.preview");
    let tried = 0;
    const empty = () => !Object.values(item.texts).some((text) => text.trim()) && !Object.keys(item.pictures).length;
    const tryItem = async () => {
      const mine = (tried += 1);
      if (empty()) { result.replaceChildren(); return; }
      const known = (run.history && history.length) || user !== null;
      const ways = run.near.filter((by) => by === "content" || (by === "image" && Object.keys(item.pictures).length) || (by === "text" && Object.values(item.texts).some((text) => text.trim())));
      const parts = ways.map(async (by) => {
        const answer = await browse.ask("try", { body: { ...item, by, ...(by === "content" && known ? who() : { of }) }, signal });
        const place = answer.rank === undefined ? null : make("p.placed", {}, "It would stand at place ", make("b", {}, answer.rank > answer.depth ? `${whole(answer.depth + 1)} or later` : whole(answer.rank)), ` of ${whole(answer.depth + 1)} in this list, with `, make("b", {}, browse.score(answer.score, answer.measure)), ".");
        return [place, make("h3", {}, WAYS[by]), browse.tiles(answer.items.map(([other, cosine]) => browse.tile(other, { note: browse.number(cosine, 2) })))].filter(Boolean);
      });
      if (!parts.length) { result.replaceChildren(make("p.muted", {}, "This model reads nothing of that.")); return; }
      const found = await Promise.all(parts.map((part) => part.catch((error) => {
        if (!(error instanceof browse.Refused)) throw error;
        return [browse.trouble(error)];
      }))).catch((error) => { if (error.name !== "AbortError") throw error; return null; });
      if (found && mine === tried) { result.replaceChildren(...found.flat()); browse.say("The neighbours of the new item are shown"); }
    };
    let wait = 0;
    const soon = () => { clearTimeout(wait); wait = setTimeout(tryItem, 250); };
    signal.addEventListener("abort", () => clearTimeout(wait));

    const field = browse.about.images[0];
    const take = (file) => {
      if (!file) return;
      if (!file.type.startsWith("image/")) { preview.replaceChildren(make("p.trouble", {}, "That is no picture.")); return; }
      if (file.size > BYTES) { preview.replaceChildren(make("p.trouble", {}, "That picture is larger than 16 MB.")); return; }
      const reader = new FileReader();
      reader.addEventListener("load", () => {
        item.pictures = { [field]: [String(reader.result).split(",")[1]] };
        const shown = make("img.shot", { alt: "the new picture" });
        shown.src = URL.createObjectURL(file);
        preview.replaceChildren(shown, make("button", { type: "button", onclick: () => { URL.revokeObjectURL(shown.src); item.pictures = {}; choose.value = ""; preview.replaceChildren(); tryItem(); } }, "remove"));
        tryItem();
      });
      reader.readAsDataURL(file);
    };
    const choose = make("input", { type: "file", accept: "image/*", onchange: () => take(choose.files[0]) });
    const zone = make("div.zone", {
      ondragover: (event) => { event.preventDefault(); zone.classList.add("over"); }, ondragleave: () => zone.classList.remove("over"),
      ondrop: (event) => { event.preventDefault(); zone.classList.remove("over"); take(event.dataTransfer.files[0]); },
    }, make("label", {}, "Drop or paste a picture here, or choose one ", choose), preview);
    const paste = (event) => { const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/")); if (file) take(file); };
    document.addEventListener("paste", paste);
    signal.addEventListener("abort", () => document.removeEventListener("paste", paste));
    const texts = browse.about.texts.slice(0, 4).map((name) => make("label.text", {}, words(name), make("textarea", { rows: 2, maxlength: "4000", oninput: (event) => { item.texts[name] = event.target.value; soon(); } })));
    const reads = run.near.some((by) => ["content", "image", "text"].includes(by)) && (field || texts.length);

    show();
    return [
      make("h1", {}, "What if"),
      make("p.lead", {}, user === null ? "Somebody of whom nothing is known but this history." : ["User ", words(user), ": add to the history, or remove something, and the list follows."], runs[1] ? [" By ", words(run.short), "."] : null),
      make("div.choice.top", {}, picker("Choose a user", usersNamed(signal), (one) => { location.hash = browse.to(["try"], { user: one, of: of || "" }); }, signal),
        run.history ? picker("Add an item", itemsNamed(signal), (one) => set([...history, one]), signal) : null,
        runs[1] ? make("a", { href: browse.to(["try"], { user, of: of ? "" : 1 }) }, "by ", words(runs[1 - of].short)) : null),
      run.history ? past : null, list,
      make("h2", {}, "An item that does not exist"),
      reads ? make("div.new-item", {}, field ? zone : null, make("div", {}, texts)) : make("p.muted", {}, "This run reads ids alone: it can say nothing of an item that it has never seen."),
      result,
    ].filter(Boolean);
  };
})();
