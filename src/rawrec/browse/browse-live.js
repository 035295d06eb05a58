"use strict";
// What happens now: the version that answers, how fresh it is, what was published, and how well new events are foretold.
(() => {
  const { make, words, whole, number, views } = browse;
  const EVERY = 2000, KEPT = 90;

  const span = (seconds) => {
    if (seconds === null || !Number.isFinite(seconds)) return "–";
    for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (seconds >= 2 * size) return `${whole(Math.floor(seconds / size))} ${name}`;
    return `${number(seconds, seconds < 10 ? 1 : 0)} s`;
  };

  /** A line through numbers, null where there is none; said in words for who does not see it. */
  const line = (name, series, digits = 4) => {
    const all = series.flatMap(([, values]) => values).filter((value) => value !== null);
    if (!all.length) return null;
    const [low, high] = [Math.min(...all), Math.max(...all)], room = high - low || 1, svg = (tag, attributes) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      return node;
    };
    const latest = series.map(([title, values]) => [title, values.filter((value) => value !== null).pop()]);
    const chart = svg("svg", { viewBox: "0 0 600 120", role: "img", preserveAspectRatio: "none", "aria-label": `${name}, from ${number(low, digits)} to ${number(high, digits)}; latest ${latest.map(([title, value]) => `${title} ${number(value, digits)}`).join(", ")}` });
    series.forEach(([, values], n) => {
      const path = values.map((value, at) => (value === null ? "" : `${at && values[at - 1] !== null ? "L" : "M"}${(4 + (592 * at) / Math.max(1, values.length - 1)).toFixed(1)} ${(112 - (104 * (value - low)) / room).toFixed(1)}`)).join("");
      chart.append(svg("path", { d: values.length === 1 ? `${path}h4` : path, class: `k${n}` }));
    });
    return make("figure.chart", {}, make("figcaption", {}, make("b", {}, name), latest.map(([title, value], n) => make(`span.key.k${n}`, {}, ` ${title} ${number(value, digits)}`)), make("span.muted", {}, ` from ${number(low, digits)} to ${number(high, digits)}`)), chart);
  };

  views.live = async (_, __, signal) => {
    if (browse.data) return [make("h1", {}, "Live"), make("p", {}, "An exported page stands still: rawrec serve shows what happens now.")];
    const place = make("div"), past = [];
    let timer = 0, version = "";
    const rate = (name) => {
      if (past.length < 2) return "–";
      const [first, last] = [past[Math.max(0, past.length - 6)], past[past.length - 1]];
      return last[name] === null ? "–" : number(Math.max(0, last[name] - first[name]) / Math.max(0.001, (last.at - first.at) / 1000), 1);
    };
    const card = (name, value, told) => make("div.card", {}, make("span", {}, name), make("strong", {}, value), told ? make("small", {}, told) : null);
    const fill = (now) => {
      if (version && version !== now.served.version) browse.say(`Version ${now.served.version} answers now`);
      version = now.served.version;
      const published = now.versions, windows = now.windows;
      const values = (name) => windows.map((one) => one[name]);
      const charts = [
        line("AUC of new events, before they are learned", [["as trained", values("auc")], ["as served", values("served/auc")]].filter(([, all]) => all.some((value) => value !== null))),
        line("Log loss", [["as trained", values("logloss")], ["as served", values("served/logloss")]].filter(([, all]) => all.some((value) => value !== null))),
        line("Calibration: mean prediction / mean label", [["pcoc", values("pcoc")]], 3),
      ].filter(Boolean);
      place.replaceChildren(
        make("div.cards", {}, card("Version", words(now.served.version), `since ${span(Date.now() / 1000 - now.loaded)}`), card("Latest event it knows", now.served.age === null ? "–" : `${span(now.served.age)} ago`, browse.day(now.served.watermark)),
          card("Events a second", now.events === null ? "–" : rate("events"), now.events === null ? "no log: rawrec serve --log" : `${whole(now.events)} since the start`), card("Requests a second", rate("requests"), `${whole(now.requests)} since the start; ${whole(now.waiting)} wait`),
          card("Items", whole(now.items), now.hidden ? `${whole(now.hidden)} hidden` : ""), card("Versions taken", whole(now.swaps), now.refused ? `${whole(now.refused)} refused` : "")),
        make("h2", {}, "Foretold, then learned"),
        ...(charts.length ? [make("p.muted", {}, `${browse.plural(windows.length, "window")} of ${whole(windows[windows.length - 1].judged || 0)} judged impressions: each was predicted before the model had seen what was done.`), ...charts]
          : [make("p.muted", {}, published === null ? "One run is served as it is: rawrec online RUN --publish DIR, and rawrec serve DIR, go on learning." : "The trainer has judged nothing yet.")]),
        ...(published === null ? [] : [make("h2", {}, "Versions"), now.told ? make("p.trouble", {}, browse.shown(now.told)) : null,
          now.held ? make("p.notice", {}, "Somebody rolled back: what is published is not served until rawrec rollback DIR latest.") : null,
          make("div.scroll", {}, make("table", {}, make("thead", {}, make("tr", {}, ["Version", "Steps", "Events", "Items", "Users", "Latest event", ""].map((text) => make("th", { scope: "col" }, text)))),
            make("tbody", {}, published.map((one) => make("tr", {}, make("td", {}, words(one.name)), [one.step, one.events, one.items, one.users].map((value) => make("td", {}, whole(value))), make("td", {}, browse.day(one.watermark)), make(one.refused ? "td.down" : "td", {}, one.served ? make("b", {}, "served") : one.refused ? words(`refused: ${one.refused}`) : "")))))),
          now.count > published.length ? make("p.muted", {}, `the latest ${whole(published.length)} of ${whole(now.count)}`) : null].filter(Boolean)));
    };
    const look = async () => {
      try {
        const now = await browse.ask("live", { signal });
        past.push({ at: Date.now(), requests: now.requests, events: now.events });
        if (past.length > KEPT) past.shift();
        if (!signal.aborted) fill(now);
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!(error instanceof browse.Refused) || error.status === 401) throw error;
        if (!place.querySelector(".gone")) place.prepend(make("p.trouble.gone", {}, "The server does not answer; trying again."));
      }
      timer = setTimeout(look, document.hidden ? 5 * EVERY : EVERY);
    };
    signal.addEventListener("abort", () => clearTimeout(timer));
    await look();
    return [make("h1", {}, "Live"), place];
  };
})();
