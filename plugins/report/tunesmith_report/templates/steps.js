// Choose a step whose completions are shown, and the order of the completions of a prompt.
(() => {
  const section = document.querySelector("#completions");
  if (!section) return;
  const form = section.querySelector(".stepper"), [range, lowest] = form.querySelectorAll("input");
  const order = form.querySelector("select"), steps = [...section.querySelectorAll(".generated")];

  const sort = (step) => {
    const sign = lowest.checked ? 1 : -1, key = order.value;
    for (const list of step.querySelectorAll("ol")) {
      list.append(...[...list.children].sort((a, b) => sign * (a.dataset[key] - b.dataset[key])));
    }
  };

  const show = (event) => {
    steps.forEach((step, index) => (step.hidden = index !== +range.value));
    range.setAttribute("aria-valuetext", `step ${steps[range.value].dataset.step}`);
    sort(steps[range.value]);
    // A page of a running run reloads itself, and stays at the step that was chosen.
    if (event) history.replaceState(null, "", `#step-${steps[range.value].dataset.step}`);
  };

  for (const button of form.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      range.value = +range.value + +button.dataset.by;
      show(true);
    });
  }
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  const chosen = steps.findIndex((step) => location.hash === `#step-${step.dataset.step}`);
  range.value = chosen < 0 ? steps.length - 1 : chosen;
  show();
})();
