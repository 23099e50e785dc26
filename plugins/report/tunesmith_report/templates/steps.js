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

  const show = () => {
    steps.forEach((step, index) => (step.hidden = index !== +range.value));
    range.setAttribute("aria-valuetext", `step ${steps[range.value].dataset.step}`);
    sort(steps[range.value]);
  };

  for (const button of form.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      range.value = +range.value + +button.dataset.by;
      show();
    });
  }
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = steps.length === 0;
  show();
})();
