"use strict";
// The page: ten drawings, four algorithms, one step at a time.

const DWELL = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 350; // milliseconds to show each step

/** @template {HTMLElement} T @param {string} id @returns {T} */
const byId = (id) => /** @type {any} */ (document.getElementById(id));

/** @param {number} milliseconds */
const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

const page = {
  examples: LABELS.map((label) => new Pad("Example", label, () => forget())),
  queries: LABELS.map((label) => new Pad("Query", label, () => forget())),
  panels: STORED.map((model) => new Panel(model)),
  models: STORED.map(modelOf),
  task: 0, // the index of the next task
  run: 0, // counts adaptations; a newer one cancels an older one
};

/** @param {string} text */
function say(text) {
  byId("status").textContent = text;
}

/** @returns {number} how many drawings are missing */
const empty = () => [...page.examples, ...page.queries].filter((pad) => pad.empty).length;

/** Remove the results, which belong to other drawings. */
function forget() {
  page.run++;
  page.panels.forEach((panel) => panel.clear());
  /** @type {HTMLInputElement} */ (byId("step")).disabled = true;
  show(0);
  say(empty() ? `${empty()} of 10 drawings to go.` : "Ready to adapt.");
  /** @type {HTMLButtonElement} */ (byId("adapt")).disabled = empty() > 0;
}

/** @param {number} step */
function show(step) {
  /** @type {HTMLInputElement} */ (byId("step")).value = `${step}`;
  byId("shown").textContent = `${step}`;
  page.panels.forEach((panel) => panel.choose(step));
}

/** Adapt all four models and show every step. */
async function adaptAll() {
  forget();
  const run = page.run, support = { images: imagesOf(page.examples.map((pad) => pad.ink)), targets: [0, 1, 2, 3, 4] };
  const queries = imagesOf(page.queries.map((pad) => pad.ink));
  const frozen = /** @type {HTMLInputElement} */ (byId("frozen")).checked;
  const adapting = page.models.map((model) => adapt(model, support, queries, { steps: STEPS, frozen }));
  const spent = adapting.map(() => 0);
  for (let step = 0; step <= STEPS; step++) {
    for (const [i, panel] of page.panels.entries()) {
      const begun = performance.now(), scores = adapting[i].next().value;
      panel.add(/** @type {Floats} */ (scores), (spent[i] += performance.now() - begun));
      await pause(0); // keeps the page responsive
      if (run !== page.run) return;
    }
    show(step);
    say(`After ${step} inner step${step === 1 ? "" : "s"}.`);
    await pause(DWELL);
    if (run !== page.run) return;
  }
  finish();
}

/** Let the visitor look at the steps again. */
function finish() {
  /** @type {HTMLInputElement} */ (byId("step")).disabled = false;
  say("Adapted. Move the slider to look at the steps again.");
  document.body.dataset.adapted = `${page.run}`;
}

/** Fill all pads with the next held-out task and adapt. */
function fill() {
  const { examples, queries } = TASKS[page.task++ % TASKS.length];
  drawingsOf(examples, WAYS).forEach((ink, i) => page.examples[i].set(ink));
  drawingsOf(queries, WAYS).forEach((ink, i) => page.queries[i].set(ink));
  adaptAll();
}

byId("examples").append(...page.examples.map((pad) => pad.figure));
byId("queries").append(...page.queries.map((pad) => pad.figure));
byId("panels").append(...page.panels.map((panel) => panel.article));
byId("fill").addEventListener("click", fill);
byId("clear").addEventListener("click", () => [...page.examples, ...page.queries].forEach((pad) => pad.set(null)));
byId("adapt").addEventListener("click", adaptAll);
byId("frozen").addEventListener("change", () => empty() || adaptAll());
byId("step").addEventListener("input", (event) => show(Number(/** @type {HTMLInputElement} */ (event.target).value)));
fill();
