"use strict";
// The inner loop: a few steps of the preset's rule on the support set.

/**
 * @typedef {object} Model
 * @property {"mean" | "flatten"} features
 * @property {"sgd" | "persistent_adam"} rule
 * @property {number} rate
 * @property {boolean} headOnly whether the algorithm adapts only the head, as ANIL does
 * @property {Params} params
 * @property {Params | null} moments second moments, for `persistent_adam`
 */

/** @param {Floats} w @param {Floats} g @param {number} rate @returns {Floats} */
function sgd(w, g, rate) {
  const moved = new Floats(w.length);
  for (let i = 0; i < w.length; i++) moved[i] = w[i] - rate * g[i];
  return moved;
}

/**
 * Adam without momentum, as in innerloop.engine.outer.persistent_adam: the new parameter and its new moment.
 * @param {Floats} w @param {Floats} v @param {Floats} g @param {number} rate
 * @returns {[Floats, Floats]}
 */
function persistentAdam(w, v, g, rate) {
  const moved = new Floats(w.length), moment = new Floats(w.length);
  for (let i = 0; i < w.length; i++) {
    moment[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
    moved[i] = w[i] - (rate * g[i]) / (Math.sqrt(moment[i]) + 1e-8);
  }
  return [moved, moment];
}

/**
 * The model after one step; it shares arrays that did not change.
 * @param {Model} model @param {Params} grads @returns {Model}
 */
function stepped(model, grads) {
  const params = { ...model.params }, moments = model.moments && { ...model.moments };
  for (const [name, g] of Object.entries(grads))
    if (moments) [params[name], moments[name]] = persistentAdam(params[name], moments[name], g, model.rate);
    else params[name] = sgd(params[name], g, model.rate);
  return { ...model, params, moments };
}

/**
 * Adapt a model and yield its scores for the queries after 0, 1, ..., `steps` inner steps.
 * @param {Model} model
 * @param {{images: Floats, targets: number[]}} support
 * @param {Floats} queries `[queries, 28, 28, 1]`, normalised together (transductive)
 * @param {{steps: number, frozen: boolean}} settings
 * @returns {Generator<Floats>} `[queries, ways]` each
 */
function* adapt(model, support, queries, { steps, frozen }) {
  const headOnly = frozen || model.headOnly;
  const features = (/** @type {Floats} */ images) => embed(model.params, model.features, images);
  let seen = null, asked = features(queries);
  for (let step = 0; ; step++) {
    yield scoresOf(model.params, asked);
    if (step === steps) return;
    if (!seen || !headOnly) seen = features(support.images);
    model = stepped(model, lossGradient(model.params, model.features, seen, support.targets, headOnly));
    if (!headOnly) asked = features(queries);
  }
}
