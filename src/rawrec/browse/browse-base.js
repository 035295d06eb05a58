"use strict";
// What all views share: nodes made of text alone, addresses, and answers of the server or of an exported page.
const browse = { views: {}, about: null, token: "", data: null };
(() => {
  const CONTROL = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]/g;

  /** Text of others in one line: control characters, and those that turn the direction of writing, as signs. */
  browse.shown = (text) => String(text).replace(CONTROL, (sign) => {
    const code = sign.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
  });

  /** A node. Classes stand in the name: "div.tiles.wide". What is given is text or nodes, never markup. */
  browse.make = (name, attributes, ...children) => {
    const [tag, ...classes] = name.split(".");
    const node = document.createElement(tag);
    if (classes.length) node.className = classes.join(" ");
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (key in node && typeof value !== "string") node[key] = value;
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  };

  /** Words of others, in a direction of their own. */
  browse.words = (text, name = "bdi") => browse.make(name, { dir: "auto" }, browse.shown(text));

  const lines = new Intl.NumberFormat("en-US");
  browse.whole = (number) => lines.format(number);
  browse.number = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : "–");
  browse.score = (value, measure) => (measure === "probability" ? `${browse.number(100 * value, 1)} %` : browse.number(value));
  browse.day = (seconds) => {
    const date = new Date(seconds * 1000);
    return seconds === null || Number.isNaN(date.getTime()) ? "" : date.toISOString().slice(0, 10);
  };
  browse.plural = (count, one, many = `${one}s`) => `${browse.whole(count)} ${count === 1 ? one : many}`;

  // ------------------------------------------------------------------------------------------------------- addresses
  const plain = (text) => { try { return decodeURIComponent(text); } catch { return text; } };

  /** Where the page is: its parts and its options, of `#/user/u1?until=now`. */
  browse.place = () => {
    const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    return { parts: path.split("/").filter(Boolean).map(plain), options: new URLSearchParams(query) };
  };

  /** The address of a view. Options that are empty are left out. */
  browse.to = (parts, options = {}) => {
    const given = new URLSearchParams(Object.entries(options).filter(([, value]) => value !== undefined && value !== null && value !== ""));
    const query = given.toString();
    return `#/${parts.map(encodeURIComponent).join("/")}${query ? `?${query}` : ""}`;
  };

  /** Changes options of the present address without a new entry in the browser's history. */
  browse.keep = (changes) => {
    const { parts, options } = browse.place();
    for (const [key, value] of Object.entries(changes)) {
      if (value === undefined || value === null || value === "") options.delete(key); else options.set(key, value);
    }
    history.replaceState(null, "", browse.to(parts, Object.fromEntries(options)));
  };

  /** A JSON value of an address, or what stands for one that is none. */
  browse.json = (text, otherwise) => {
    try { const value = JSON.parse(text ?? ""); return value && typeof value === "object" ? value : otherwise; } catch { return otherwise; }
  };

  // --------------------------------------------------------------------------------------------------------- answers
  browse.Refused = class extends Error {};
  const facts = new Map();

  /** What is known of an item: what answers said of it. */
  browse.fact = (item) => facts.get(item) || { title: "", picture: false, values: "", train: 0, bucket: "", lacks: [] };
  browse.titleOf = (item) => browse.shown(browse.fact(item).title || item);
  const learn = (found) => { for (const [item, fact] of Object.entries(found || {})) facts.set(item, fact); };

  const fetched = async (path, query, body, signal) => {
    const address = `page/${path}${query ? `?${new URLSearchParams(query)}` : ""}`;
    const headers = browse.token ? { authorization: `Bearer ${browse.token}` } : {};
    if (body) headers["content-type"] = "application/json";
    for (let tries = 0; ; tries += 1) {
      let answer;
      try {
        answer = await fetch(address, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new browse.Refused("the server does not answer");
      }
      if (answer.ok) return answer;
      if (answer.status === 503 && tries < 4) {
        await new Promise((done) => setTimeout(done, 400 * 2 ** tries));
        continue;
      }
      const said = await answer.json().catch(() => ({}));
      const refused = new browse.Refused(said.error || `the server answered ${answer.status}`);
      refused.status = answer.status;
      throw refused;
    }
  };

  // An exported page has answers by what was asked.
  const keys = {
    user: (query) => query.user,
    item: (query) => query.item,
    near: (query) => `${query.of || 0} ${query.by} ${query.item}`,
    list: (_, body) => (body.history || body.where || body.diversity ? null : `${body.of || 0} ${body.until || "train"} ${body.user}`),
  };
  const matching = (texts, find) => {
    const wanted = find.toLowerCase().split(/\s+/).filter(Boolean);
    return texts.filter(([text]) => wanted.every((word) => text.includes(word))).map(([, value]) => value);
  };
  const stored = (path, query, body) => {
    const data = browse.data;
    if (path === "about" || path === "map") return data[path];
    if (path === "facts") return { facts: {} };
    if (path === "users") {
      const found = matching(data.users.map((one) => [one[0].toLowerCase(), one]), query.find || "");
      return { users: found.slice(0, query.k || 30), count: found.length };
    }
    if (path === "items") {
      const rows = data.items.filter((item) => !body.bucket || browse.fact(item).bucket === body.bucket);
      const found = matching(rows.map((item) => [`${item} ${browse.fact(item).title}`.toLowerCase(), item]), body.find || "");
      const at = body.at || 0;
      return { found: found.slice(at, at + (body.k || 40)), count: found.length, at };
    }
    const key = keys[path] && keys[path](query || {}, body || {});
    const answer = key !== null && data.answers[path] ? data.answers[path][key] : undefined;
    if (answer === undefined) throw new browse.Refused("this is not in the exported page, which holds a sample: it needs a server (rawrec browse)");
    if (answer.error) throw new browse.Refused(answer.error);
    return answer;
  };

  /** What the server answers; raises Refused with its one line. */
  browse.ask = async (path, { query, body, signal } = {}) => {
    const answer = browse.data ? stored(path, query, body) : await (await fetched(path, query, body, signal)).json();
    learn(answer.facts);
    return answer;
  };

  /** Shows the picture of an item in an image. */
  browse.picture = (image, item, side = 176, field = "") => {
    if (browse.data) {
      if (browse.data.pictures[item]) image.src = browse.data.pictures[item]; else image.remove();
      return;
    }
    const query = { item, side, ...(field ? { field } : {}) };
    if (!browse.token) { image.src = `page/picture?${new URLSearchParams(query)}`; return; }
    fetched("picture", query).then((answer) => answer.blob()).then((blob) => {
      image.src = URL.createObjectURL(blob);
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    }).catch(() => image.remove());
  };

  /** Learns what an exported page holds. */
  browse.open = () => {
    const block = document.getElementById("data");
    if (!block) return;
    browse.data = JSON.parse(block.textContent);
    learn(browse.data.facts);
  };

  /** Tells who listens instead of looking. */
  browse.say = (text) => { document.getElementById("said").textContent = text; };
})();
