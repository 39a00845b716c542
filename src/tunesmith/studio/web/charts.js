// Curves as SVG: one small chart a name, several runs in a chart, smoothing, values under the pointer, zoom by dragging.
// window.tunesmithCharts(node) gives {update(series, options)}; series: {name: [{label, points: [[step, value], ...]}]}.
window.tunesmithCharts = (node) => {
  const NS = "http://www.w3.org/2000/svg";
  const colors = ["#4f46e5", "#c2410c", "#047857", "#be185d", "#0369a1", "#a16207", "#6d28d9", "#334155"];
  const margins = { left: 30, right: 10, top: 8, bottom: 20 };
  const LETTER = 6.6; // pixels of a digit at the size of the marks
  const FLAT = 1e-4; // what changes by a smaller share is drawn as a straight line
  const cards = new Map();

  const svg = (tag, facts, ...inside) => {
    const made = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(facts)) made.setAttribute(name, value);
    made.append(...inside);
    return made;
  };
  const text = (value) => {
    if (!Number.isFinite(value)) return String(value);
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2).replace("e+", "e");
    return String(Number(value.toPrecision(4)));
  };
  // The marks of an axis, with as many digits as it takes to tell them apart.
  const marks = (values) => {
    const most = Math.max(...values.map(Math.abs));
    const apart = values.length > 1 ? Math.abs(values[1] - values[0]) : most;
    const digits = Math.min(15, Math.max(1, Math.floor(Math.log10(most / apart || 1) + 1e-9) + 2));
    return values.map((value) => {
      const size = Math.abs(value), exact = Number(value.toPrecision(digits));
      return size !== 0 && (size < 1e-3 || size >= 1e6) ? exact.toExponential().replace("e+", "e") : String(exact);
    });
  };
  const ticks = (low, high, count) => {
    const span = high - low || 1;
    const rough = span / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const steps = [10, 5, 2, 1, 0.5, 0.2].map((one) => one * power);
    let found = [];
    for (const step of steps.slice(steps.findLastIndex((one) => one >= rough))) {
      found = [];
      for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6 && found.length < 12; at += step) found.push(Number(at.toPrecision(12)));
      if (found.length > 1) break; // one mark alone says nothing of the scale
    }
    return found;
  };
  // Exponential mean with the bias of its start taken out, so that the first points are not pulled to 0.
  const smooth = (points, weight) => {
    let sum = 0, mass = 0;
    return points.map(([step, value]) => {
      sum = weight * sum + (1 - weight) * value;
      mass = weight * mass + (1 - weight);
      return [step, sum / mass];
    });
  };

  const makeCard = (name) => {
    const card = document.createElement("figure");
    card.className = "chart";
    card.dataset.curve = name;
    card.innerHTML = "<figcaption><span></span><output></output></figcaption><div class='plot'></div><div class='legend'></div>";
    card.querySelector("figcaption span").textContent = name;
    node.append(card);
    const made = { card, zoom: null, drag: null, lines: [], scale: null, left: margins.left };
    const plot = card.querySelector(".plot");
    const stepAt = (event) => {
      const box = plot.getBoundingClientRect();
      const share = (event.clientX - box.left - made.left) / (box.width - made.left - margins.right);
      return made.scale ? made.scale.x0 + share * (made.scale.x1 - made.scale.x0) : 0;
    };
    plot.addEventListener("pointermove", (event) => point(made, stepAt(event)));
    plot.addEventListener("pointerleave", () => { made.drag = null; point(made, null); });
    plot.addEventListener("pointerdown", (event) => { made.drag = stepAt(event); });
    plot.addEventListener("pointerup", (event) => {
      const from = made.drag, to = stepAt(event);
      made.drag = null;
      if (from === null || !made.scale || Math.abs(to - from) < (made.scale.x1 - made.scale.x0) / 50) return;
      made.zoom = [Math.min(from, to), Math.max(from, to)];
      draw(made);
    });
    plot.addEventListener("dblclick", () => { made.zoom = null; draw(made); });
    cards.set(name, made);
    return made;
  };

  const caption = (made, words) => { made.card.querySelector("output").textContent = words; };

  const point = (made, step) => {
    const guide = made.card.querySelector(".guide");
    if (!guide) return;
    if (step === null) { guide.setAttribute("visibility", "hidden"); caption(made, made.last); return; }
    let nearest = null;
    const found = made.lines.map(({ label, points }) => {
      const at = points.reduce((best, one) => (Math.abs(one[0] - step) < Math.abs(best[0] - step) ? one : best), points[0]);
      nearest = nearest === null || Math.abs(at[0] - step) < Math.abs(nearest - step) ? at[0] : nearest;
      return `${made.lines.length > 1 ? `${label} ` : ""}${text(at[1])}`;
    });
    if (nearest === null) return;
    const x = made.scale.x(nearest);
    guide.setAttribute("visibility", "visible");
    guide.setAttribute("x1", x);
    guide.setAttribute("x2", x);
    caption(made, `${text(nearest)}: ${found.join(" · ")}`);
  };

  const draw = (made) => {
    const plot = made.card.querySelector(".plot");
    const size = { ...margins, width: Math.max(180, plot.clientWidth || 360), height: 150 };
    const isSeen = (one) => !made.zoom || (one[0] >= made.zoom[0] && one[0] <= made.zoom[1]);
    const lines = made.series.map(({ label, points }, place) => {
      const whole = points.filter((one) => Number.isFinite(one[1]));
      return { label, color: colors[place % colors.length], points: whole.filter(isSeen), smoothed: smooth(whole, made.weight).filter(isSeen) };
    }).filter(({ points }) => points.length);
    made.lines = lines;
    if (!lines.length) { plot.replaceChildren(); return; }
    const xs = lines.flatMap(({ points }) => points.map((one) => one[0]));
    const ys = lines.flatMap(({ points }) => points.map((one) => one[1]));
    let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
    const isFlat = y1 - y0 < FLAT * Math.abs(y1);
    const room = (isFlat ? Math.abs(y1) * 0.1 : (y1 - y0) * 0.06) || 1;
    y0 = y0 >= 0 && y0 - room < 0 ? 0 : y0 - room;
    y1 += room;
    const beside = ticks(y0, y1, 3), besides = marks(beside);
    size.left = made.left = Math.max(margins.left, 8 + LETTER * Math.max(...besides.map((one) => one.length)));
    const x = (value) => size.left + ((value - x0) / (x1 - x0)) * (size.width - size.left - size.right);
    const y = (value) => size.height - size.bottom - ((value - y0) / (y1 - y0)) * (size.height - size.top - size.bottom);
    made.scale = { x0, x1, x };
    const picture = svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": describe(made, lines) });
    for (const [place, at] of beside.entries()) {
      picture.append(svg("line", { class: "grid-line", x1: size.left, x2: size.width - size.right, y1: y(at), y2: y(at) }));
      picture.append(svg("text", { x: size.left - 6, y: y(at) + 4, "text-anchor": "end" }, besides[place]));
    }
    const below = ticks(x0, x1, 5), belows = marks(below);
    for (const [place, at] of below.entries()) {
      const most = size.width - (LETTER / 2) * belows[place].length;
      picture.append(svg("text", { x: Math.min(x(at), most), y: size.height - 6, "text-anchor": "middle" }, belows[place]));
    }
    for (const { color, points, smoothed } of lines) {
      const path = (list) => list.map((one, place) => `${place ? "L" : "M"}${x(one[0]).toFixed(1)},${y(one[1]).toFixed(1)}`).join("");
      if (made.weight > 0 && points.length > 1) picture.append(svg("path", { class: "raw", d: path(points), stroke: color }));
      picture.append(svg("path", { class: "curve", d: path(made.weight > 0 ? smoothed : points), stroke: color }));
      if (points.length === 1) picture.append(svg("circle", { cx: x(points[0][0]), cy: y(points[0][1]), r: 3, fill: color }));
    }
    picture.append(svg("line", { class: "guide", y1: size.top, y2: size.height - size.bottom, visibility: "hidden" }));
    plot.replaceChildren(picture);
    made.last = lines.map(({ label, points }) => `${lines.length > 1 ? `${label} ` : ""}${text(points.at(-1)[1])}`).join(" · ");
    caption(made, lines.length > 3 ? "" : made.last);
    made.card.querySelector(".legend").replaceChildren(...(lines.length > 1 ? lines.map(({ label, color }) => {
      const item = document.createElement("span");
      item.textContent = label;
      item.style.setProperty("--line", color);
      return item;
    }) : []));
  };

  const describe = (made, lines) => lines.map(({ label, points }) =>
    `${made.card.dataset.curve}${lines.length > 1 ? ` (${label})` : ""}: ${text(points[0][1])} → ${text(points.at(-1)[1])}, ${text(points[0][0])}–${text(points.at(-1)[0])}`).join("; ");

  new ResizeObserver(() => { for (const made of cards.values()) draw(made); }).observe(node);

  return {
    update(series, weight) {
      for (const [name, made] of cards) if (!(name in series)) { made.card.remove(); cards.delete(name); }
      for (const [name, list] of Object.entries(series)) {
        const made = cards.get(name) || makeCard(name);
        made.series = list;
        made.weight = name === "loss" || name === "grad_norm" ? weight : 0;
        node.append(made.card);
        draw(made);
      }
    },
  };
};
