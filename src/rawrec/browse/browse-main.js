"use strict";
// The frame: which view stands at an address, the search, keys, the token.
(() => {
  const { make, words, whole } = browse;
  const content = document.getElementById("content");
  const VIEWS = [["start", [], "Users"], ["items", ["items"], "Items"], ["cold", ["cold"], "Cold items"], ["try", ["try"], "What if"], ["map", ["map"], "Map"], ["live", ["live"], "Live"]];
  const SHOWN = VIEWS.filter(([name]) => browse.views[name]);
  let ending = new AbortController(), shownAt = null;

  const nameOf = (parts) => (parts.length ? parts[0] : "start");

  const show = async () => {
    const { parts, options } = browse.place();
    const name = Object.hasOwn(browse.views, nameOf(parts)) ? nameOf(parts) : "start";
    ending.abort();
    ending = new AbortController();
    const { signal } = ending;
    const here = { user: "start", item: "items" }[name] || name;
    for (const link of document.querySelectorAll("#views a")) {
      if (link.dataset.view === here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    }
    content.setAttribute("aria-busy", "true");
    let nodes;
    try {
      nodes = await browse.views[name](parts.slice(1), options, signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof browse.Refused)) throw error;
      nodes = error.status === 401 ? asking(show) : [make("h1", {}, "This cannot be shown"), browse.trouble(error)];
    }
    if (signal.aborted) return;
    content.removeAttribute("aria-busy");
    content.replaceChildren(...nodes.flat().filter(Boolean));
    const title = content.querySelector("h1");
    document.title = `${title ? title.textContent.slice(0, 80) : "rawrec"} · rawrec`;
    const at = location.hash.split("?")[0];
    if (shownAt !== null && shownAt !== at) {
      scrollTo(0, 0);
      if (document.activeElement !== find) content.focus({ preventScroll: true });
    }
    shownAt = at;
  };

  // ------------------------------------------------------------------------------------------------------- the token
  /** Asks for the token of a server that wants one of everybody; it is kept until the tab is closed. */
  const asking = (then) => {
    const input = make("input", { type: "password", autocomplete: "off", id: "token" });
    const form = make("form.choice", {}, make("label", { for: "token" }, "Token"), input, make("button", { type: "submit" }, "Open"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      browse.token = input.value.trim();
      sessionStorage.setItem("rawrec-token", browse.token);
      then();
    });
    return [make("h1", {}, "This server asks for its token"), make("p", {}, browse.token ? "That was not it." : "It is the one of --token-file."), form];
  };

  // ------------------------------------------------------------------------------------------------------ the search
  const find = document.getElementById("find"), hits = document.getElementById("hits");
  let entries = [], active = -1, turn = 0, shownFor = "";
  const close = () => { hits.hidden = true; find.setAttribute("aria-expanded", "false"); find.removeAttribute("aria-activedescendant"); active = -1; };
  const point = (at) => {
    active = at;
    entries.forEach((entry, n) => entry.setAttribute("aria-selected", String(n === at)));
    if (entries[at]) { find.setAttribute("aria-activedescendant", entries[at].id); entries[at].scrollIntoView({ block: "nearest" }); }
  };
  const go = (address) => { close(); find.value = ""; find.blur(); location.hash = address; };
  const entry = (node, address, n) => make("div.hit-row", { role: "option", id: `hit-${n}`, "data-address": address, onpointerdown: (event) => { event.preventDefault(); go(address); } }, node);
  const search = async () => {
    const text = find.value.trim(), mine = (turn += 1);
    if (!text) { close(); return; }
    let items, users;
    try {
      [items, users] = await Promise.all([browse.ask("items", { body: { find: text, k: 7 } }), browse.ask("users", { query: { find: text, k: 4 } })]);
    } catch (error) {
      if (mine === turn) { hits.replaceChildren(browse.trouble(error)); hits.hidden = false; }
      return;
    }
    if (mine !== turn) return;
    shownFor = text;
    const rows = [
      ...items.found.map((item) => [[browse.shot(item, 88), make("span", {}, words(browse.titleOf(item)), make("small", {}, words(item)))], browse.to(["item", item])]),
      ...users.users.map(([user, before]) => [[make("span.words", {}, "user"), make("span", {}, words(user), make("small", {}, `${whole(before)} taken`))], browse.to(["user", user])]),
    ];
    if (items.count > items.found.length) rows.push([[make("span", {}, `all ${whole(items.count)} items found`)], browse.to(["items"], { find: text })]);
    entries = rows.map(([node, address], n) => entry(node, address, n));
    hits.replaceChildren(...(entries.length ? entries : [make("p.muted", {}, "Nothing is called so.")]));
    hits.hidden = false;
    find.setAttribute("aria-expanded", "true");
    browse.say(`${browse.plural(items.count, "item")} and ${browse.plural(users.count, "user")} found`);
    point(entries.length ? 0 : -1);
  };
  let wait = 0;
  find.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(search, 120); });
  find.addEventListener("focus", () => { if (find.value.trim()) search(); });
  find.addEventListener("blur", close);
  find.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { close(); find.blur(); }
    if (hits.hidden || !entries.length) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); point((active + step + entries.length) % entries.length); }
  });
  document.getElementById("search").addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(wait);
    if (hits.hidden || shownFor !== find.value.trim()) await search();
    if (entries[active]) go(entries[active].dataset.address);
  });

  // ------------------------------------------------------------------------------------------------------------ keys
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); content.focus(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
    if (event.key === "/") { event.preventDefault(); find.focus(); }
    const view = SHOWN[Number(event.key) - 1];
    if (/^[1-9]$/.test(event.key) && view) location.hash = browse.to(view[1]);
  });

  const start = async () => {
    browse.open();
    browse.token = browse.data ? "" : sessionStorage.getItem("rawrec-token") || "";
    try {
      browse.about = await browse.ask("about");
    } catch (error) {
      content.replaceChildren(...(error.status === 401 ? asking(start) : [make("h1", {}, "rawrec"), browse.trouble(error)]));
      return;
    }
    document.getElementById("name").replaceChildren("rawrec ", words(browse.about.runs[0].name, "small"));
    document.getElementById("views").replaceChildren(...SHOWN.filter(([name]) => !browse.data || !["try", "live"].includes(name)).map(([name, parts, text], n) => make("a", { href: browse.to(parts), "data-view": name, title: `key ${n + 1}` }, text)));
    addEventListener("hashchange", show);
    show();
  };
  start();
})();
