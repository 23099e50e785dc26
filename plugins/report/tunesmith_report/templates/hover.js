// Show the values at the step under the pointer in all charts. The page is complete without this script.
(() => {
  const charts = [...document.querySelectorAll(".chart")].map((figure) => {
    const readout = figure.querySelector(".readout");
    return { figure, readout, initial: [...readout.childNodes], ...JSON.parse(figure.dataset.points) };
  });

  const nearest = (steps, step) => {
    let low = 0, high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle; else high = middle;
    }
    return step - steps[low] <= steps[high] - step ? low : high;
  };

  const format = (value) => {
    const size = Math.abs(value), digits = +value.toPrecision(4);
    if (size >= 1000 && size < 1e9) return Math.round(value).toLocaleString("en");
    return size && (size < 1e-3 || size >= 1e9) ? digits.toExponential() : String(digits);
  };

  const element = (kind, label, value) => {
    const span = document.createElement("span"), bold = document.createElement("b");
    span.className = kind;
    if (label !== false && kind !== "step") span.append(document.createElement("i"), label);
    bold.textContent = value;
    span.append(bold);
    return span;
  };

  // Small charts identify a series only by the color of its dot, because there is no room for labels.
  const show = (step) => {
    for (const { figure, readout, span, series } of charts) {
      const visible = series.filter((one) => one.steps.length), large = figure.classList.contains("large");
      const values = visible.map((one) => {
        const index = nearest(one.steps, step), label = large ? `${one.label} ` : "";
        return { at: one.steps[index], item: element(one.kind, visible.length > 1 && label, format(one.values[index])) };
      });
      const shown = values.length ? values[0].at : step;
      for (const { at, item } of values) if (large && at !== shown) item.append(` at ${at.toLocaleString("en")}`);
      readout.replaceChildren(element("step", "", `step ${shown.toLocaleString("en")}`), ...values.map(({ item }) => item));
      const left = span[1] > span[0] ? (100 * (step - span[0])) / (span[1] - span[0]) : 50;
      for (const cursor of figure.querySelectorAll(".cursor")) {
        cursor.hidden = false;
        cursor.style.left = left + "%";
      }
    }
  };

  const reset = () => {
    for (const { figure, readout, initial } of charts) {
      readout.replaceChildren(...initial);
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
      area.addEventListener("pointerleave", reset);
    }
  }

  addEventListener("beforeprint", () => document.querySelectorAll("details:not(.more)").forEach((one) => (one.open = true)));
})();
