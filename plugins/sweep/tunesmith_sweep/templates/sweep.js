// Sort the table and draw the charts. The page has every number without this script.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip"), body = document.querySelector("tbody");
  const SVG = "http://www.w3.org/2000/svg";

  const element = (name, attributes, ...children) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const short = (value) => {
    if (value === null || value === undefined) return "-";
    if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
    const size = Math.abs(value);
    return size && (size < 1e-3 || size >= 1e6) ? String(+value.toPrecision(3)).length > 7 ? value.toExponential(1) : String(+value.toPrecision(3)) : String(+value.toPrecision(4));
  };

  // Table
  const heads = [...document.querySelectorAll("thead th")];
  const keyOf = (row, column) => JSON.parse(row.cells[column].dataset.sort);
  heads.forEach((head, column) => {
    if ([...body.rows].some((row) => row.cells[column].classList.contains("n"))) head.classList.add("n");
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((one, other) => {
        const a = keyOf(one, column), b = keyOf(other, column);
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });

  // Colors: from far to near the best value
  const valued = data.trials.filter((trial) => trial.value !== null);
  const ranked = [...valued].sort((a, b) => (data.greater ? b.value - a.value : a.value - b.value));
  const rank = new Map(ranked.map((trial, index) => [trial, index / Math.max(1, ranked.length - 1)]));
  const color = (trial) => `color-mix(in srgb, var(--near) ${Math.round(100 - 90 * (rank.get(trial) ?? 1))}%, var(--far))`;
  const shown = [...ranked].reverse(); // the best are drawn last, above the others

  const describe = (trial) => [
    `${String(trial.number).padStart(4, "0")} ${trial.state}`,
    `${data.metric} ${short(trial.value)}`,
    ...data.keys.map((key) => `${key} ${short(trial.params[key])}`),
  ].join("\n");
  const point = (number, on) => {
    document.querySelectorAll(`[data-trial="${number}"]`).forEach((node) => node.classList.toggle("at", on));
  };
  const hover = (node, trial) => {
    node.dataset.trial = trial.number;
    node.classList.add("trial");
    node.addEventListener("pointerenter", () => { point(trial.number, true); tip.textContent = describe(trial); tip.hidden = false; });
    node.addEventListener("pointermove", (event) => {
      const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, room))}px`;
      tip.style.top = `${event.clientY + 14}px`;
    });
    node.addEventListener("pointerleave", () => { point(trial.number, false); tip.hidden = true; });
    return node;
  };
  for (const row of body.rows) {
    row.addEventListener("pointerenter", () => point(row.dataset.trial, true));
    row.addEventListener("pointerleave", () => point(row.dataset.trial, false));
  }

  // Scales: a function from a value to 0..1, and ticks
  const round = (low, high) => {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((part) => part * power).find((size) => size >= rough * 0.999);
    const ticks = [];
    for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) ticks.push(index * step);
    return ticks;
  };
  const scale = (values, few = 4) => { // few: distinct values up to which each has a tick
    const present = values.filter((value) => value !== null && value !== undefined);
    if (present.length && present.every((value) => typeof value === "number")) {
      const low = Math.min(...present), high = Math.max(...present);
      const log = low > 0 && high / low >= 20, f = log ? Math.log : (x) => x;
      const span = f(high) - f(low) || 1, flat = high === low;
      const at = (value) => (flat ? 0.5 : (f(value) - f(low)) / span);
      const inverse = (part) => (log ? Math.exp(f(low) + part * span) : low + part * span);
      const distinct = [...new Set(present)].sort((a, b) => a - b);
      const ticks = distinct.length <= few ? distinct : log ? [0, 0.25, 0.5, 0.75, 1].map((part) => +inverse(part).toPrecision(2)) : round(low, high);
      return { at, ticks: ticks.map((value) => [at(value), short(value)]) };
    }
    const names = [...new Set(values.map(short))];
    const at = (value) => (names.length > 1 ? names.indexOf(short(value)) / (names.length - 1) : 0.5);
    return { at, ticks: names.map((name, index) => [names.length > 1 ? index / (names.length - 1) : 0.5, name]) };
  };
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const room = (target) => Math.max(280, target.clientWidth || 600);

  const frame = (width, height, left, bottom) => ({
    svg: element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }),
    x: (part) => left + 8 + part * (width - left - 20),
    y: (part) => 10 + (1 - part) * (height - bottom - 20),
    width, height, left, bottom,
  });
  const axes = (box, xs, ys, name) => {
    const few = box.width < 420 && xs.ticks.length > 3 ? 2 : 1;
    ys.ticks.forEach(([part, text]) => box.svg.append(
      element("path", { class: "rule", d: `M${box.left} ${box.y(part)}H${box.width}` }),
      element("text", { x: box.left - 8, y: box.y(part) + 4, "text-anchor": "end" }, cut(text, 9))));
    xs.ticks.forEach(([part, text], index) => index % few === 0 && box.svg.append(
      element("text", { x: box.x(part), y: box.height - box.bottom + 12, "text-anchor": part < 0.05 ? "start" : part > 0.95 ? "end" : "middle" }, cut(text, 14))));
    box.svg.append(element("text", { class: "name", x: box.x(0.5), y: box.height - 4, "text-anchor": "middle" }, name));
  };
  const line = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

  const progress = (target) => {
    const box = frame(room(target), 260, 56, 36), last = data.trials.length;
    const ys = scale(valued.map((trial) => trial.value), 0);
    const x = (number) => box.x(last > 1 ? (number - 1) / (last - 1) : 0.5);
    const every = Math.max(1, Math.ceil(last / 8));
    const ticks = data.trials.filter((_, index) => index % every === 0).map((t) => [last > 1 ? (t.number - 1) / (last - 1) : 0.5, String(t.number)]);
    axes(box, { ticks }, ys, "trial");
    let best = null;
    const front = [];
    for (const trial of valued) {
      if (trial.state !== "finished") continue;
      const better = best === null || (data.greater ? trial.value > best : trial.value < best);
      if (better && best !== null) front.push([x(trial.number), box.y(ys.at(best))]);
      if (better) best = trial.value;
      front.push([x(trial.number), box.y(ys.at(best))]);
    }
    if (front.length > 1) box.svg.append(element("path", { class: "front", d: line(front) }));
    for (const trial of shown) box.svg.append(hover(element("g", {}, dot(trial, x(trial.number), box.y(ys.at(trial.value)))), trial));
    target.append(box.svg);
  };
  const dot = (trial, x, y) => element("circle", trial.state === "finished" ? { cx: x, cy: y, r: 4.5, style: `fill:${color(trial)}` } : { class: "open", cx: x, cy: y, r: 4 });

  const parallel = (target) => {
    const columns = [...data.keys.map((key) => [key, (trial) => trial.params[key]]), [data.metric, (trial) => trial.value]];
    const width = Math.max(room(target), columns.length * 110), height = 300;
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    if (width > room(target)) svg.style.minWidth = `${width}px`;
    const at = (index) => 60 + (index * (width - 130)) / Math.max(1, columns.length - 1);
    const y = (part) => 34 + (1 - part) * (height - 54);
    const scales = columns.map(([name, value]) => scale(valued.map(value), name === data.metric ? 0 : 6));
    for (const trial of shown) {
      const d = line(columns.map(([, value], index) => [at(index), y(scales[index].at(value(trial)))]));
      const dashed = trial.state === "finished" ? "" : ";stroke-dasharray:3 4";
      svg.append(hover(element("g", {}, element("path", { class: "hit", d }), element("path", { d, style: `stroke:${color(trial)}${dashed}` })), trial));
    }
    columns.forEach(([name], index) => {
      svg.append(element("path", { class: "axis", d: `M${at(index)} ${y(1)}V${y(0)}` }),
        element("text", { class: "name", x: at(index), y: 16, "text-anchor": "middle" }, cut(name.split(".").pop(), 18)));
      scales[index].ticks.forEach(([part, text]) => svg.append(
        element("text", { x: at(index) + 6, y: y(part) + 4, style: "paint-order:stroke;stroke:var(--paper);stroke-width:5px" }, cut(text, 12))));
    });
    const wide = document.createElement("div");
    wide.className = "wide";
    wide.append(svg);
    target.append(wide);
  };

  const scatter = (target) => {
    const all = document.createElement("div");
    all.className = "scatters";
    target.append(all);
    const ys = scale(valued.map((trial) => trial.value), 0);
    for (const key of data.keys) {
      const box = frame(Math.min(340, room(target)), 220, 56, 36), xs = scale(valued.map((trial) => trial.params[key]));
      axes(box, xs, ys, key);
      for (const trial of shown) box.svg.append(hover(element("g", {}, dot(trial, box.x(xs.at(trial.params[key])), box.y(ys.at(trial.value)))), trial));
      all.append(box.svg);
    }
  };

  const curves = (target) => {
    const drawn = data.trials.filter((trial) => trial.curve.length);
    if (!drawn.length) return;
    const box = frame(room(target), 320, 56, 36), points = drawn.flatMap((trial) => trial.curve);
    const most = Math.max(...points.map(([step]) => step)), ys = scale(points.map(([, value]) => value), 0);
    const xs = { at: (step) => step / (most || 1), ticks: round(0, most || 1).filter(Number.isInteger).map((step) => [step / (most || 1), short(step)]) };
    axes(box, xs, ys, "step");
    const order = [...drawn].sort((a, b) => (rank.get(b) ?? 2) - (rank.get(a) ?? 2));
    for (const trial of order) {
      const d = line(trial.curve.map(([step, value]) => [box.x(xs.at(step)), box.y(ys.at(value))]));
      const [step, value] = trial.curve[trial.curve.length - 1];
      const end = dot(trial, box.x(xs.at(step)), box.y(ys.at(value)));
      box.svg.append(hover(element("g", {}, element("path", { class: "hit", d }), element("path", { d, style: `stroke:${color(trial)}` }), end), trial));
    }
    target.append(box.svg);
  };

  const charts = { progress, parallel, scatter, curves };
  const draw = () => {
    for (const [name, chart] of Object.entries(charts)) {
      const target = document.getElementById(name), drawable = name === "curves" ? data.trials.some((t) => t.curve.length) : valued.length > 0;
      target.replaceChildren();
      target.closest("section").hidden = !drawable;
      if (drawable) chart(target);
    }
  };
  draw();
  let drawnWidth = document.documentElement.clientWidth;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === drawnWidth) return;
    drawnWidth = document.documentElement.clientWidth;
    draw();
  });
})();
