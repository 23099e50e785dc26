// The read-out of the curves: the values at the step below the pointer, in all charts at once. The page is whole without.
(() => {
  const charts = [...document.querySelectorAll(".chart")].map((figure) => {
    const readout = figure.querySelector(".readout");
    return { figure, readout, rest: [...readout.childNodes], ...JSON.parse(figure.dataset.points) };
  });

  const nearest = (steps, step) => {
    let low = 0, high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle; else high = middle;
    }
    return step - steps[low] <= steps[high] - step ? low : high;
  };

  const said = (value) => {
    const size = Math.abs(value), digits = +value.toPrecision(4);
    if (size >= 1000 && size < 1e9) return Math.round(value).toLocaleString("en");
    return size && (size < 1e-3 || size >= 1e9) ? digits.toExponential() : String(digits);
  };

  const part = (kind, label, value) => {
    const span = document.createElement("span"), bold = document.createElement("b");
    span.className = kind;
    if (label !== false && kind !== "step") span.append(document.createElement("i"), label);
    bold.textContent = value;
    span.append(bold);
    return span;
  };

  // In a small chart the colour of the dot has to do, so that the line does not grow.
  const show = (step) => {
    for (const { figure, readout, span, series } of charts) {
      const drawn = series.filter((one) => one.steps.length), large = figure.classList.contains("large");
      const parts = drawn.map((one) => {
        const place = nearest(one.steps, step), label = large ? `${one.label} ` : "";
        return { at: one.steps[place], made: part(one.kind, drawn.length > 1 && label, said(one.values[place])) };
      });
      const own = parts.length ? parts[0].at : step;
      for (const { at, made } of parts) if (large && at !== own) made.append(` at ${at.toLocaleString("en")}`);
      readout.replaceChildren(part("step", "", `step ${own.toLocaleString("en")}`), ...parts.map(({ made }) => made));
      const left = span[1] > span[0] ? (100 * (step - span[0])) / (span[1] - span[0]) : 50;
      for (const cursor of figure.querySelectorAll(".cursor")) {
        cursor.hidden = false;
        cursor.style.left = left + "%";
      }
    }
  };

  const rest = () => {
    for (const { figure, readout, rest } of charts) {
      readout.replaceChildren(...rest);
      for (const cursor of figure.querySelectorAll(".cursor")) cursor.hidden = true;
    }
  };

  for (const { figure, span, series } of charts) {
    const steps = (series.find((one) => one.steps.length) || { steps: [] }).steps;
    if (!steps.length) continue;
    for (const area of figure.querySelectorAll(".area")) {
      area.addEventListener("pointermove", (event) => {
        const box = area.getBoundingClientRect();
        const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
        show(steps[nearest(steps, span[0] + share * (span[1] - span[0]))]);
      });
      area.addEventListener("pointerleave", rest);
    }
  }

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
})();
