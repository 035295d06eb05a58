"use strict";
// Items: one with its neighbours by content and by id; those that were found; cold ones with their neighbours.
(() => {
  const { make, words, whole, views } = browse;
  const WAYS = { "": "Nearest by the model's vectors", content: "By content", id: "By id", image: "By picture", text: "By words" };
  const TOLD = {
    content: "what the model makes of pictures and words", id: "embeddings of ids, of items that training saw", image: "what the encoder makes of the picture",
    text: "what the encoder makes of the words", "": "cosine",
  };

  const near = (item, by, of, signal, k = 8) => browse.ask("near", { query: { item, by, of, k }, signal });
  const found = (answer) => browse.tiles(answer.items.map(([other, cosine]) => browse.tile(other, { note: browse.number(cosine, 2) })));

  views.item = async ([item], _, signal) => {
    if (item === undefined) { location.replace(browse.to(["items"])); return []; }
    const about = browse.about, known = await browse.ask("item", { query: { item }, signal });
    const fact = browse.fact(item);
    const texts = Object.entries(known.texts).map(([name, all]) => [make("dt", {}, words(name)), all.map((text) => make("dd", {}, words(text, "span")))]);
    const pictures = Object.keys(known.pictures);
    const neighbours = about.runs.flatMap((run, of) => run.near.map((by) => make("section.way", {},
      make("h3", {}, WAYS[by], about.runs[1] ? [", ", words(run.short)] : null, make("span.muted", {}, TOLD[by])),
      browse.later(near(item, by, of, signal), found, signal))));
    return [
      make("h1", {}, words(browse.titleOf(item))),
      make("p.lead", {}, words(item), fact.values ? [" · ", words(fact.values)] : null, fact.added ? " · added after training" : null),
      make("div.item-of", {},
        make("div.pictures", {}, pictures.length ? pictures.map((field) => make("figure", {}, browse.shot(item, 480, field), pictures.length > 1 && make("figcaption", {}, words(field)))) : browse.shot(item, 480)),
        make("dl", {}, make("dt", {}, "Training rows"), make("dd", {}, `${whole(fact.train)} (${fact.bucket})`),
          fact.lacks.length ? [make("dt", {}, "Missing"), make("dd", {}, words(fact.lacks.join(", ")))] : null, texts)),
      make("p.links", {}, make("a", { href: browse.to(["map"], { item }) }, "on the map"),
        browse.data ? null : [" · ", make("a", { href: browse.to(["try"], { history: JSON.stringify([item]) }) }, "what would somebody get who took only this?")]),
      make("h2", {}, "Items like it"),
      neighbours.length ? make("div.ways", {}, neighbours) : make("p.muted", {}, "This model has no vectors of items, so it knows no neighbours."),
    ];
  };

  // --------------------------------------------------------------------------------------------------- several of them
  views.items = async (_, options, signal) => {
    const asked = { find: options.get("find") || "", bucket: options.get("bucket") || "" }, at = Math.max(0, Number(options.get("at")) || 0);
    const wish = { where: browse.json(options.get("where"), {}), diversity: 0 };
    const input = make("input", { type: "search", value: asked.find, placeholder: "words of a title, or an id", oninput: () => change() });
    const bucket = make("select", { onchange: () => change() }, make("option", { value: "" }, "all items"),
      Object.entries(browse.about.buckets).map(([name, count]) => make("option", { value: name }, `${name} (${whole(count)})`)));
    bucket.value = asked.bucket;
    const place = make("div");
    let turn = 0;
    const fill = async (from) => {
      const mine = (turn += 1);
      const body = { find: input.value, at: from, k: 48, ...(bucket.value ? { bucket: bucket.value } : {}), ...(Object.keys(wish.where).length ? { where: wish.where } : {}) };
      try {
        const answer = await browse.ask("items", { body, signal });
        if (mine !== turn) return;
        browse.say(`${browse.plural(answer.count, "item")} found`);
        const next = from + answer.found.length < answer.count;
        place.replaceChildren(make("p.muted", {}, `${browse.plural(answer.count, "item")}${answer.count > answer.found.length ? `, ${whole(from + 1)} to ${whole(from + answer.found.length)}` : ""}; those that training saw most first`),
          browse.tiles(answer.found.map((item) => browse.tile(item, { note: `${browse.fact(item).bucket}, ${whole(browse.fact(item).train)}` }))),
          make("p.links", {}, from > 0 ? make("a", { href: link(Math.max(0, from - 48)) }, "the 48 before") : null, from > 0 && next ? " · " : null, next ? make("a", { href: link(from + 48) }, "the next 48") : null));
      } catch (error) {
        if (error.name !== "AbortError" && mine === turn) place.replaceChildren(browse.trouble(error));
      }
    };
    const now = () => ({ find: input.value, bucket: bucket.value, where: Object.keys(wish.where).length ? JSON.stringify(wish.where) : "" });
    const link = (from) => browse.to(["items"], { ...now(), at: from || "" });
    const change = () => { browse.keep({ ...now(), at: "" }); fill(0); };
    await fill(at);
    const filters = browse.data ? null : browse.filters(wish, change);
    if (filters) filters.querySelector("input[type=range]").closest("label").remove();
    return [make("h1", {}, "Items"), make("div.choice", {}, make("label", {}, "Find ", input), make("label", {}, "seen in training ", bucket)), filters, place];
  };

  const AT_ONCE = 8;
  views.cold = async (_, options, signal) => {
    const at = Math.max(0, Number(options.get("at")) || 0);
    const answer = await browse.ask("items", { body: { bucket: "cold", at, k: AT_ONCE }, signal });
    const run = browse.about.runs[0], by = run.near.find((way) => way !== "id");
    const rows = answer.found.map((item) => make("div.cold", {}, browse.tile(item),
      by === undefined ? make("p.muted", {}, "This model reads no content: it knows nothing of such an item.") : browse.later(near(item, by, 0, signal), found, signal)));
    const next = at + answer.found.length < answer.count;
    return [
      make("h1", {}, "Cold items"),
      make("p.lead", {}, `${browse.plural(answer.count, "item")} without a training row. Beside each stand those that are nearest ${by ? WAYS[by].replace("By", "by") : "by the model's vectors"} (cosine): good neighbours are why it can be recommended before anybody took it.`),
      answer.found.length ? rows : make("p", {}, "Every item has training rows."),
      make("p.links", {}, at > 0 ? make("a", { href: browse.to(["cold"], { at: Math.max(0, at - AT_ONCE) || "" }) }, "those before") : null, at > 0 && next ? " · " : null,
        next ? make("a", { href: browse.to(["cold"], { at: at + AT_ONCE }) }, "the next") : null),
    ];
  };
})();
