"use strict";
// Users: who there are; of one the history, the list and its reasons, what came next; two runs side by side.
(() => {
  const { make, words, whole, views } = browse;

  const card = (name, value, told) => make("div.card", {}, make("span", {}, name), make("strong", {}, value), told && make("small", {}, told));

  /** A list of users as links. */
  browse.userLinks = (users) => make("ul.people", {}, users.map(([user, before, later]) => make("li", {},
    make("a", { href: browse.to(["user", user]) }, words(user)),
    make("span.muted", {}, `${whole(before)} before, ${whole(later)} next`))));

  views.start = async (_, options, signal) => {
    const about = browse.about, find = options.get("find") || "";
    const found = await browse.ask("users", { query: { find, k: 60 }, signal });
    const cold = about.buckets.cold || 0;
    const input = make("input", { type: "search", value: find, placeholder: "part of an id", oninput: () => { browse.keep({ find: input.value }); fill(); } });
    const place = make("div");
    const said = (answer) => [
      make("p.muted", {}, input.value ? `${browse.plural(answer.count, "user")} found` : `${whole(answer.users.length)} of ${browse.plural(answer.count, "user")}, drawn once; those first of whom it is known what came next`),
      answer.users.length ? browse.userLinks(answer.users) : make("p", {}, "No such user."),
    ];
    let turn = 0;
    const fill = async () => {
      const mine = (turn += 1);
      const answer = await browse.ask("users", { query: { find: input.value, k: 60 }, signal }).catch(() => null);
      if (answer && mine === turn) place.replaceChildren(...said(answer));
    };
    place.append(...said(found));
    return [
      make("h1", {}, words(about.runs[0].name)),
      make("p.lead", {}, about.runs.map((run, n) => [n ? ", beside it " : "", n ? [words(run.name), ": "] : "", browse.shown(run.model), run.paradigm ? `, ${browse.shown(run.paradigm)}` : ""]), "; data: ", words(about.data)),
      about.sample && make("p.notice", {}, browse.shown(about.sample)),
      make("div.cards", {},
        card("Users", whole(about.users)), card("Items", whole(about.items), cold ? `${whole(cold)} without a training row` : ""),
        card("Lists", about.runs[0].measure === "probability" ? "ranked" : "retrieved", about.runs[0].measure === "probability" ? "by the probability of a click" : "by a score without a scale")),
      make("p.muted", {}, browse.shown(about.split)),
      make("h2", {}, "Users"),
      make("label.choice", {}, "Find a user ", input),
      place,
    ];
  };

  // ------------------------------------------------------------------------------------------------------ of one user
  /** Fields by which a list is filtered. wish: {where, diversity}, changed in place; changed: called then. */
  browse.filters = (wish, changed) => {
    const rows = [];
    const set = (name, value) => {
      if (value === undefined) delete wish.where[name]; else wish.where[name] = value;
      changed();
    };
    for (const column of browse.about.columns) {
      if (column.kind === "category") {
        const select = make("select", { onchange: () => set(column.name, select.value === "" ? undefined : [column.words[Number(select.value)][0]]) },
          make("option", { value: "" }, "any"), column.words.map(([word, count], at) => make("option", { value: String(at) }, `${browse.shown(word).slice(0, 60)} (${whole(count)})`)));
        const now = wish.where[column.name], at = column.words.findIndex(([word]) => Array.isArray(now) && now[0] === word);
        if (at >= 0) select.value = String(at);
        rows.push(make("label", {}, words(column.name), " ", select));
      } else {
        const now = wish.where[column.name] || {};
        const ends = ["least", "most"].map((end) => make("input.short", { type: "number", step: "any", placeholder: String(Number(column[end].toPrecision(4))), value: now[end] === undefined ? "" : String(now[end]), "aria-label": `${column.name}, at ${end}` }));
        for (const end of ends) {
          end.addEventListener("change", () => {
            const range = {};
            ["least", "most"].forEach((name, at) => { if (ends[at].value !== "" && Number.isFinite(ends[at].valueAsNumber)) range[name] = ends[at].valueAsNumber; });
            set(column.name, Object.keys(range).length ? range : undefined);
          });
        }
        rows.push(make("span.range", {}, words(column.name), " ", ends[0], " to ", ends[1]));
      }
    }
    const slide = make("input", { type: "range", min: "0", max: "1", step: "0.1", value: String(wish.diversity || 0), onchange: () => { wish.diversity = slide.valueAsNumber; changed(); } });
    rows.push(make("label", {}, "diversity ", slide));
    const open = Object.keys(wish.where).length > 0 || wish.diversity > 0;
    return make("details.filters", { open }, make("summary", {}, "Filters"), make("div.choice", {}, rows));
  };

  const wishOf = (options) => {
    const kept = browse.json(options.get("where"), {});
    return { where: Array.isArray(kept) ? {} : kept, diversity: Math.min(1, Math.max(0, Number(options.get("diversity")) || 0)), until: options.get("until") === "now" ? "now" : "train" };
  };

  views.user = async ([user], options, signal) => {
    if (user === undefined) { location.replace(browse.to([])); return []; }
    const about = browse.about, wish = wishOf(options);
    const found = await browse.ask("user", { query: { user }, signal });
    if (!found.later.length && !options.get("until")) wish.until = "now";
    const next = new Map(found.later.map(([item, , part]) => [item, `taken next (${part})`]));
    const lists = make("div.lists"), came = make("div"), beside = make("div");

    const body = (of) => ({ user, of, until: wish.until, ...(Object.keys(wish.where).length ? { where: wish.where } : {}), ...(wish.diversity ? { diversity: wish.diversity } : {}) });
    const nextStrip = (answer) => {
      const ranks = answer ? answer.ranks : {}, seen = new Set();
      const tiles = found.later.filter(([item]) => !seen.has(item) && seen.add(item)).map(([item, time, part]) => {
        const rank = ranks[item] ? `place ${whole(ranks[item])}` : answer && wish.until === "train" ? `beyond ${whole(answer.depth)}` : "";
        return browse.tile(item, { note: [part, browse.day(time), rank].filter(Boolean).join(" · ") });
      });
      came.replaceChildren(browse.strip("What came next", tiles, { first: true, told: found.later_count > tiles.length ? `the first of ${whole(found.later_count)}` : "", empty: "Nothing: the parts by which the run is judged have nothing of this user." }));
    };
    const fill = () => {
      nextStrip(null);
      const hits = wish.until === "train" ? next : new Map();
      const asked = about.runs.map((_, of) => browse.ask("list", { body: body(of), signal }));
      const of = (answer, n) => {
        if (n === 0) nextStrip(answer);
        const count = answer.items.filter((one) => hits.has(one.item)).length;
        browse.say(`${browse.plural(answer.items.length, "item")} recommended${hits.size ? `, ${count} of them taken next` : ""}`);
        return browse.listed(answer, {
          later: hits, name: about.runs[1] ? ["Recommended by ", words(about.runs[n].short)] : "Recommended",
          chosen: n === 0 ? browse.place().options.get("why") || "" : "", choose: n === 0 ? (item) => browse.keep({ why: item }) : undefined,
        });
      };
      lists.replaceChildren(...asked.map((answer, n) => browse.later(answer, (done) => of(done, n), signal)));
      if (about.runs[1]) {
        beside.replaceChildren(make("h2", {}, "Side by side"), browse.later(Promise.all(asked), (both) => browse.merged(both[0], both[1], about.runs.map((run) => browse.shown(run.short))), signal));
      }
    };
    const changed = () => {
      browse.keep({ where: Object.keys(wish.where).length ? JSON.stringify(wish.where) : "", diversity: wish.diversity || "", until: wish.until === "now" && found.later.length ? "now" : "", why: "" });
      fill();
    };
    const moment = make("select", { onchange: () => { wish.until = moment.value; changed(); } },
      make("option", { value: "train" }, "before it was judged"), make("option", { value: "now" }, "of all that is known"));
    moment.value = wish.until;
    fill();
    const past = found.history.map(([item, time]) => browse.tile(item, { note: browse.day(time) }));
    return [
      make("h1", {}, "User ", words(user)),
      make("p.lead", {}, `${browse.plural(found.history_count, "item")} taken in the training part, ${whole(found.later_count)} after it`),
      make("div.choice", {}, make("label", {}, "List ", moment),
        browse.data ? null : make("a", { href: browse.to(["try"], { user }) }, "what if the history were another?")),
      browse.data ? null : browse.filters(wish, changed),
      browse.strip("History, the latest last", past, { told: found.history_count > past.length ? `the latest of ${whole(found.history_count)}` : "", empty: "No history: this user took nothing in the training part." }),
      lists, came, beside,
    ];
  };
})();
