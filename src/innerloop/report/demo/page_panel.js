"use strict";
// The results of one algorithm.

const LABELS = ["A", "B", "C", "D", "E"];
const STEPS = 5;

/** @param {number} share @returns {string} */
const percent = (share) => `${Math.round(100 * share)}`;

/** @param {Stored} model @returns {string} how it adapts */
function ruleOf({ rule, rate, headOnly, trainedSteps }) {
  const kind = rule === "sgd" ? "gradient descent" : "Adam with learned moments";
  const trained = `trained with ${trainedSteps} step${trainedSteps === 1 ? "" : "s"}`;
  return `${kind}, step size ${rate}${headOnly ? ", head only" : ""}; ${trained}`;
}

/** Probabilities after the chosen step, and accuracy after every step. */
class Panel {
  /** @param {Stored} model */
  constructor(model) {
    this.cells = LABELS.map((row) => LABELS.map((column) => element("td", row === column ? { class: "right" } : {})));
    this.counts = this.row();
    this.means = this.row();
    this.steps = Array.from({ length: STEPS + 1 }, (_, step) => element("th", { scope: "col" }, `${step}`));
    this.time = element("p", { class: "soft" });
    this.article = element("article", { class: "panel", "data-algorithm": model.name },
      element("h3", {}, model.title), element("p", { class: "soft rule" }, ruleOf(model)),
      this.probabilities(model.title), this.summary(model.title), this.time);
    /** @type {Floats[]} probabilities after every step so far */
    this.found = [];
    this.clear();
  }

  /** @returns {HTMLElement[]} one cell per step */
  row() {
    return Array.from({ length: STEPS + 1 }, () => element("td"));
  }

  /** @param {string} title */
  probabilities(title) {
    const heads = LABELS.map((label) => element("th", { scope: "col" }, label));
    const rows = LABELS.map((label, i) => element("tr", {}, element("th", { scope: "row" }, label), ...this.cells[i]));
    const says = `${title}: probability of each class for each query, in per cent`;
    const caption = element("caption", { class: "hidden" }, says);
    const head = element("thead", {}, element("tr", {}, element("td"), ...heads));
    return element("table", { class: "probabilities" }, caption, head, element("tbody", {}, ...rows));
  }

  /** @param {string} title */
  summary(title) {
    const line = (/** @type {string} */ name, /** @type {Node[]} */ cells) =>
      element("tr", {}, element("th", { scope: "row" }, name), ...cells);
    const caption = element("caption", { class: "hidden" }, `${title}: accuracy after every inner step`);
    const body = element("tbody", {}, line("right of 5", this.counts), line("mean %", this.means));
    return element("table", { class: "summary" }, caption, element("thead", {}, line("step", this.steps)), body);
  }

  clear() {
    this.found.length = 0;
    for (const cell of [...this.cells.flat(), ...this.counts, ...this.means]) this.write(cell, "–", 0);
    this.time.textContent = "\u00a0";
    this.choose(0);
  }

  /** @param {HTMLElement} cell @param {string} text @param {number} share */
  write(cell, text, share) {
    cell.textContent = text;
    cell.style.setProperty("--share", `${Math.round(100 * share)}%`);
    cell.classList.toggle("strong", share > 0.55);
  }

  /** @param {Floats} scores of the queries after the next step @param {number} milliseconds so far */
  add(scores, milliseconds) {
    const step = this.found.push(softmax(scores, WAYS)) - 1, probabilities = this.found[step];
    const rows = LABELS.map((_, i) => probabilities.subarray(i * WAYS, (i + 1) * WAYS));
    const right = rows.filter((row, i) => row.indexOf(Math.max(...row)) === i).length;
    const mean = rows.reduce((sum, row, i) => sum + row[i], 0) / WAYS;
    this.write(this.counts[step], `${right}`, right / WAYS);
    this.write(this.means[step], percent(mean), mean);
    if (step === STEPS) this.time.textContent = `${STEPS} steps in ${Math.round(milliseconds)} ms`;
  }

  /** Show the probabilities after a step. @param {number} step */
  choose(step) {
    this.steps.forEach((head, i) => head.classList.toggle("chosen", i === step));
    const probabilities = this.found[step];
    if (!probabilities) return;
    this.cells.flat().forEach((cell, i) => this.write(cell, percent(probabilities[i]), probabilities[i]));
  }
}
