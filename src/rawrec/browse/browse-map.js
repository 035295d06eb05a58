"use strict";
// All items as points: coloured by category or age, moved and magnified; a lasso shows the pictures of what it holds.
(() => {
  const { make, words, whole, views } = browse;
  const ACROSS = 65535, GRID = 96, SHOWN = 60, CORNERS = 48, MANY = 3000;
  const COLOURS = ["--run", "--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6", "--baseline"];

  const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const pairs = (text) => { const raw = bytes(text), found = new Uint16Array(raw.length / 2); for (let n = 0; n < found.length; n += 1) found[n] = raw[2 * n] | (raw[2 * n + 1] << 8); return found; };

  /** A colour `#rrggbb` as the number that a canvas has for it. */
  const rgba = (text, alpha) => {
    const value = parseInt(text.slice(1), 16);
    return ((alpha << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  };

  /** Whether a point is inside a polygon of [x, y]. */
  const inside = (polygon, x, y) => {
    let is = false;
    for (let n = 0, last = polygon.length - 1; n < polygon.length; last = n, n += 1) {
      const [ax, ay] = polygon[n], [bx, by] = polygon[last];
      if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) is = !is;
    }
    return is;
  };
  browse.inside = inside;

  let kept = null; // the map is large and does not change while the page is open
  const load = async (signal) => {
    if (kept) return kept;
    const found = await browse.ask("map", { signal });
    const x = pairs(found.x), y = pairs(found.y);
    const cells = new Map();
    for (let n = 0; n < x.length; n += 1) {
      const cell = Math.floor((x[n] * GRID) / (ACROSS + 1)) * GRID + Math.floor((y[n] * GRID) / (ACROSS + 1));
      if (cells.has(cell)) cells.get(cell).push(n); else cells.set(cell, [n]);
    }
    kept = { ...found, x, y, cells, colours: found.colours.map((colour) => ({ ...colour, kinds: bytes(colour.kinds) })) };
    return kept;
  };

  views.map = async (_, options, signal) => {
    const map = await load(signal), count = map.items.length;
    if (!count) return [make("h1", {}, "Map of the items"), make("p", {}, "No item has a vector.")];
    let colour = map.colours.find((one) => one.name === options.get("by")) || map.colours[0];
    let only = -1, chosen = map.items.indexOf(options.get("item")), moving = false;
    let lasso = (options.get("lasso") || "").split("_").map((pair) => pair.split(".").map(Number)).filter((pair) => pair.length === 2 && pair.every(Number.isFinite)).slice(0, CORNERS).map(([x, y]) => [(x * ACROSS) / 1000, (y * ACROSS) / 1000]);
    const view = { zoom: 1, x: ACROSS / 2, y: ACROSS / 2 };

    const canvas = make("canvas", { tabindex: "0", role: "img", "aria-label": `Map of ${whole(count)} items. Arrows move it, plus and minus magnify it. The buttons below list the items of a colour.` });
    const card = make("div.about", { hidden: true }), frame = make("div.map.field", {}, canvas, card);
    const context = canvas.getContext("2d");
    let palette = [], width = 0, height = 0, asked = 0;

    const place = (px, py) => { // of the map -> on the canvas
      const scale = (Math.min(width, height * 1.6) * 0.94 * view.zoom) / ACROSS, down = (height * 0.94 * view.zoom) / ACROSS;
      return [width / 2 + (px - view.x) * scale, height / 2 - (py - view.y) * down];
    };
    const back = (cx, cy) => {
      const scale = (Math.min(width, height * 1.6) * 0.94 * view.zoom) / ACROSS, down = (height * 0.94 * view.zoom) / ACROSS;
      return [(cx - width / 2) / scale + view.x, (height / 2 - cy) / down + view.y];
    };

    let image = null;
    /** Many points, pixel by pixel: those of a colour that is not asked for first, and faintly. */
    const dots = (ox, oy, sx, sy, size) => {
      const [wide, high] = [canvas.width, canvas.height];
      if (!image || image.width !== wide || image.height !== high) image = context.createImageData(wide, high);
      const pixels = new Uint32Array(image.data.buffer), { x, y } = map, { kinds } = colour, last = palette.length - 1;
      const whole_ = palette.map((text) => rgba(text, 255)), faint = palette.map((text) => rgba(text, 28));
      pixels.fill(0);
      for (const clear of only < 0 ? [true] : [false, true]) {
        for (let n = 0; n < count; n += 1) {
          const kind = kinds[n];
          if (only >= 0 && (kind === only) !== clear) continue;
          const left = (ox + x[n] * sx - size / 2) | 0, top = (oy + y[n] * sy - size / 2) | 0;
          if (left < 0 || top < 0 || left + size > wide || top + size > high) continue;
          const shade = (clear ? whole_ : faint)[Math.min(kind, last)];
          for (let row = top * wide + left, end = row + size * wide; row < end; row += wide) pixels.fill(shade, row, row + size);
        }
      }
      context.putImageData(image, 0, 0);
    };

    const draw = () => {
      asked = 0;
      if (!width) return;
      const ratio = devicePixelRatio || 1, size = Math.max(1.6, Math.min(10, (count > 5000 ? 2.2 : count > 1000 ? 4 : 7) * Math.sqrt(view.zoom)));
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      const [ox, oy] = place(0, 0), [ex, ey] = place(ACROSS, ACROSS), sx = (ex - ox) / ACROSS, sy = (ey - oy) / ACROSS;
      const { x, y } = map, { kinds } = colour, last = palette.length - 1;
      if (count > MANY) {
        dots(ox * ratio, oy * ratio, sx * ratio, sy * ratio, Math.max(2, Math.round(size * ratio)));
      } else {
        for (let n = 0; n < count; n += 1) {
          context.fillStyle = palette[Math.min(kinds[n], last)];
          context.globalAlpha = only < 0 || only === kinds[n] ? 0.82 : 0.08;
          context.beginPath();
          context.arc(ox + x[n] * sx, oy + y[n] * sy, size / 2, 0, 7);
          context.fill();
        }
        context.globalAlpha = 1;
      }
      context.strokeStyle = palette.ink;
      context.lineWidth = 1.5;
      if (lasso.length > 1) {
        context.beginPath();
        lasso.forEach(([px, py], n) => { const [cx, cy] = place(px, py); if (n) context.lineTo(cx, cy); else context.moveTo(cx, cy); });
        context.closePath();
        context.stroke();
      }
      if (chosen >= 0) {
        const [cx, cy] = place(x[chosen], y[chosen]);
        context.beginPath();
        context.arc(cx, cy, 9, 0, 7);
        context.lineWidth = 2.5;
        context.stroke();
      }
    };
    const redraw = () => { if (!asked) asked = requestAnimationFrame(draw); };
    const fit = () => {
      width = frame.clientWidth;
      height = Math.round(Math.min(width * 0.62, Math.max(280, innerHeight * 0.66)));
      const ratio = devicePixelRatio || 1;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
      redraw();
    };
    const paint = () => {
      const style = getComputedStyle(document.documentElement);
      palette = COLOURS.map((name) => style.getPropertyValue(name).trim());
      palette.ink = style.getPropertyValue("--ink").trim();
      redraw();
    };

    // ------------------------------------------------------------------------------------------------ which item
    const nearest = (cx, cy, within = 14) => {
      const [px, py] = back(cx, cy), [ax, ay] = back(cx - within, cy + within), [bx, by] = back(cx + within, cy - within);
      const column = (value) => Math.max(0, Math.min(GRID - 1, Math.floor((value * GRID) / (ACROSS + 1))));
      let best = -1, least = within * within;
      for (let gx = column(ax); gx <= column(bx); gx += 1) for (let gy = column(ay); gy <= column(by); gy += 1) {
        for (const n of map.cells.get(gx * GRID + gy) || []) {
          const [nx, ny] = place(map.x[n], map.y[n]), away = (nx - cx) ** 2 + (ny - cy) ** 2;
          if (away < least) { least = away; best = n; }
        }
      }
      return px === px && py === py ? best : -1;
    };
    const asking = new Set(), known = new Set();
    const facts = async (items) => {
      const missing = items.filter((item) => !known.has(item) && !asking.has(item));
      missing.forEach((item) => asking.add(item));
      if (missing.length) await browse.ask("facts", { body: { items: missing }, signal });
      missing.forEach((item) => { known.add(item); asking.delete(item); });
    };
    const tell = async (n, cx, cy) => {
      if (n < 0) { card.hidden = true; return; }
      const item = map.items[n];
      await facts([item]).catch(() => {});
      const name = colour.names[colour.kinds[n]];
      card.replaceChildren(browse.shot(item, 88), make("div", {}, make("b", {}, words(browse.titleOf(item))), make("span.muted", {}, words(item)), name ? make("span", {}, words(String(name[0]))) : null, make("span.muted", {}, `${whole(browse.fact(item).train)} training rows`)));
      card.hidden = false;
      card.style.left = `${Math.max(0, Math.min(width - card.offsetWidth, cx + 16))}px`;
      card.style.top = `${Math.max(0, Math.min(height - card.offsetHeight, cy + 16))}px`;
    };
    let hover = 0, over = -1;
    const point = (event) => {
      clearTimeout(hover);
      const [cx, cy] = [event.offsetX, event.offsetY];
      hover = setTimeout(() => { const n = nearest(cx, cy); if (n !== over || n < 0) { over = n; tell(n, cx, cy); } }, 40);
    };

    // ------------------------------------------------------------------------------------------- lasso, move, magnify
    const result = make("section", { "aria-live": "off" });
    const list = async (rows, title) => {
      const some = rows.slice(0, SHOWN).map((n) => map.items[n]);
      browse.say(`${title}: ${browse.plural(rows.length, "item")}`);
      try {
        await facts(some);
        result.replaceChildren(browse.strip(title, some.map((item) => browse.tile(item)), { most: SHOWN, first: true, told: rows.length > some.length ? `${whole(some.length)} of ${whole(rows.length)}` : browse.plural(rows.length, "item"), empty: "no item" }));
      } catch (error) {
        if (error.name !== "AbortError") result.replaceChildren(browse.trouble(error));
      }
    };
    const within = () => { const found = []; for (let n = 0; n < count; n += 1) if ((only < 0 || colour.kinds[n] === only) && inside(lasso, map.x[n], map.y[n])) found.push(n); return found; };
    const done = () => {
      if (lasso.length < 3) { lasso = []; result.replaceChildren(); browse.keep({ lasso: "" }); redraw(); return; }
      const step = Math.ceil(lasso.length / CORNERS);
      lasso = lasso.filter((__, n) => n % step === 0);
      browse.keep({ lasso: lasso.map(([px, py]) => `${Math.round((px * 1000) / ACROSS)}.${Math.round((py * 1000) / ACROSS)}`).join("_") });
      redraw();
      list(within(), "In the lasso");
    };
    const magnify = (by, cx = width / 2, cy = height / 2) => {
      const [px, py] = back(cx, cy);
      view.zoom = Math.max(0.8, Math.min(60, view.zoom * by));
      const [nx, ny] = back(cx, cy);
      view.x += px - nx;
      view.y += py - ny;
      redraw();
    };
    let drag = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button > 1) return;
      canvas.setPointerCapture(event.pointerId);
      drag = { move: moving || event.shiftKey || event.button === 1, from: [event.offsetX, event.offsetY], at: back(event.offsetX, event.offsetY), far: false };
      if (!drag.move) lasso = [drag.at];
      card.hidden = true;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!drag) { point(event); return; }
      const [cx, cy] = [event.offsetX, event.offsetY];
      drag.far ||= Math.hypot(cx - drag.from[0], cy - drag.from[1]) > 5;
      if (drag.move) { const [px, py] = back(cx, cy); view.x += drag.at[0] - px; view.y += drag.at[1] - py; } else if (drag.far) lasso.push(back(cx, cy));
      redraw();
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!drag) return;
      const { move, far } = drag;
      drag = null;
      if (!far) {
        lasso = [];
        chosen = nearest(event.offsetX, event.offsetY, 18);
        browse.keep({ item: chosen < 0 ? "" : map.items[chosen], lasso: "" });
        redraw();
        if (chosen < 0) result.replaceChildren(); else { tell(chosen, event.offsetX, event.offsetY); list([chosen], "Chosen"); }
      } else if (!move) done();
    });
    canvas.addEventListener("pointercancel", () => { drag = null; });
    canvas.addEventListener("pointerleave", () => { clearTimeout(hover); over = -1; if (!drag) card.hidden = true; });
    canvas.addEventListener("wheel", (event) => { if (!event.ctrlKey && document.activeElement !== canvas) return; event.preventDefault(); magnify(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.offsetX, event.offsetY); }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = ACROSS / (12 * view.zoom), go = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (go) { view.x += go[0]; view.y += go[1]; redraw(); } else if (event.key === "+" || event.key === "=") magnify(1.4); else if (event.key === "-") magnify(1 / 1.4); else return;
      event.preventDefault();
    });

    // -------------------------------------------------------------------------------------------------------- legend
    const legend = make("ul.map-legend", { "aria-label": "Colours" });
    const fillLegend = () => legend.replaceChildren(...colour.names.map(([name, n], kind) => {
      const press = () => {
        only = only === kind ? -1 : kind;
        for (const [at, one] of [...legend.querySelectorAll("button")].entries()) one.setAttribute("aria-pressed", String(at === only));
        redraw();
        if (lasso.length > 2) list(within(), "In the lasso");
        else if (only < 0) result.replaceChildren();
        else { const rows = []; for (let row = 0; row < count; row += 1) if (colour.kinds[row] === kind) rows.push(row); list(rows, browse.shown(name)); }
      };
      return make("li", {}, make("button", { type: "button", "aria-pressed": "false", onclick: press }, make(`i.k${Math.min(kind, COLOURS.length - 1)}`), words(String(name)), make("span.muted", {}, ` ${whole(n)}`)));
    }));
    const by = make("select", { onchange: () => { colour = map.colours.find((one) => one.name === by.value); only = -1; browse.keep({ by: by.value }); fillLegend(); redraw(); } },
      map.colours.map((one) => make("option", { value: one.name }, browse.shown(one.name))));
    by.value = colour.name;
    fillLegend();
    const mode = make("button", { type: "button", "aria-pressed": "false", onclick: () => { moving = !moving; mode.setAttribute("aria-pressed", String(moving)); canvas.classList.toggle("moving", moving); } }, "Move");
    const button = (text, label, press) => make("button", { type: "button", "aria-label": label, onclick: press }, text);

    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", paint);
    const watcher = new ResizeObserver(fit);
    watcher.observe(frame);
    signal.addEventListener("abort", () => { scheme.removeEventListener("change", paint); watcher.disconnect(); clearTimeout(hover); });
    paint();
    if (lasso.length > 2) list(within(), "In the lasso");
    else if (chosen >= 0) list([chosen], "Chosen");
    const shares = map.shares.map((share) => `${Math.round(100 * share)} %`).join(" and ");
    const left = map.of - count;
    return [
      make("h1", {}, "Map of the items"),
      make("p.lead", {}, `${whole(count)}${map.of < map.all ? ` of ${whole(map.all)} items, drawn once,` : " items"} in the two directions in which their vectors differ most (${shares} of the variance).${left > 0 ? ` ${browse.plural(left, "item")} without a vector ${left === 1 ? "is" : "are"} left out.` : ""} Draw around some to see them.`),
      make("div.choice", {}, make("label", {}, "Coloured by ", by), make("span.buttons", {}, button("+", "Magnify", () => magnify(1.5)), button("−", "Reduce", () => magnify(1 / 1.5)), button("Whole", "Show the whole map", () => { Object.assign(view, { zoom: 1, x: ACROSS / 2, y: ACROSS / 2 }); redraw(); }), mode)),
      frame, legend, result,
    ];
  };
})();
