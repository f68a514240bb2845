"use strict";
// Conv4 of `innerloop.nn.conv4`, with stride 2: its scores, and the gradient of the support loss.

const SIDE = 28;
const WAYS = 5;
const BLOCKS = [0, 1, 2, 3];

/** @typedef {Record<string, Floats>} Params by their names in Python */

/** @param {string} name @returns {boolean} whether a parameter belongs to the head, which ANIL adapts */
const ofHead = (name) => name.startsWith("head/");

/**
 * Convolution, batch normalisation and ReLU.
 * @param {Params} params @param {number} number of the block
 * @param {Floats} images @param {number} examples @param {number} side
 */
function block(params, number, images, examples, side) {
  const weight = params[`body/${number}/weight`];
  const scale = params[`body/${number}/norm/scale`], filters = scale.length;
  const channels = weight.length / filters / 9, patches = patchesOf(images, examples, side, channels);
  const convolved = product(patches, weight, patches.length / (9 * channels), 9 * channels, filters);
  const kept = batchNormRelu(convolved, scale, params[`body/${number}/norm/offset`]);
  return { ...kept, patches, side, channels, filters };
}

/**
 * The gradients of a block's parameters, and of its images unless it is the first.
 * @param {Params} params @param {number} number @param {ReturnType<typeof block>} kept
 * @param {Floats} gradient of its output @param {number} examples
 * @returns {{grads: Params, images: Floats | null}}
 */
function blockBackward(params, number, kept, gradient, examples) {
  const { patches, side, channels, filters } = kept, inner = 9 * channels, rows = patches.length / inner;
  const norm = batchNormReluBackward(gradient, kept, params[`body/${number}/norm/scale`]);
  const grads = {
    [`body/${number}/weight`]: product(patches, norm.x, inner, rows, filters, true),
    [`body/${number}/norm/scale`]: norm.scale,
    [`body/${number}/norm/offset`]: norm.offset,
  };
  if (number === 0) return { grads, images: null };
  const turned = transposed(params[`body/${number}/weight`], inner, filters);
  const ofPatches = product(norm.x, turned, rows, filters, inner);
  return { grads, images: patchesBackward(ofPatches, examples, side, channels) };
}

/**
 * The features that the body computes for the head.
 * @param {Params} params @param {"mean" | "flatten"} features @param {Floats} images `[examples, 28, 28, 1]`
 */
function embed(params, features, images) {
  const examples = images.length / (SIDE * SIDE);
  const blocks = [];
  let x = images, side = SIDE;
  for (const number of BLOCKS) {
    const kept = block(params, number, x, examples, side);
    blocks.push(kept);
    x = kept.output;
    side = strided(side).out;
  }
  const filters = blocks[BLOCKS.length - 1].filters;
  const output = features === "mean" ? meanOverPlaces(x, examples, filters) : x;
  return { examples, blocks, places: side * side, output };
}

/**
 * The gradients of the body's parameters.
 * @param {Params} params @param {"mean" | "flatten"} features
 * @param {ReturnType<typeof embed>} embedded @param {Floats} gradient of the features
 * @returns {Params}
 */
function embedBackward(params, features, { examples, blocks, places }, gradient) {
  const filters = blocks[BLOCKS.length - 1].filters, grads = /** @type {Params} */ ({});
  let x = features === "mean" ? meanOverPlacesBackward(gradient, places, filters) : gradient;
  for (const number of [...BLOCKS].reverse()) {
    const found = blockBackward(params, number, blocks[number], x, examples);
    Object.assign(grads, found.grads);
    x = found.images ?? x;
  }
  return grads;
}

/**
 * Class scores from features.
 * @param {Params} params @param {ReturnType<typeof embed>} embedded
 * @returns {Floats} `[examples, ways]`
 */
function scoresOf(params, { output, examples }) {
  const scores = product(output, params["head/weight"], examples, output.length / examples, WAYS);
  return scores.map((value, i) => value + params["head/bias"][i % WAYS]);
}

/**
 * The gradient of the mean cross-entropy.
 * @param {Params} params @param {"mean" | "flatten"} features
 * @param {ReturnType<typeof embed>} embedded the support set @param {number[]} targets
 * @param {boolean} frozen whether to compute only the head's gradient
 * @returns {Params}
 */
function lossGradient(params, features, embedded, targets, frozen) {
  const { output, examples } = embedded, width = output.length / examples;
  const scores = crossEntropyBackward(scoresOf(params, embedded), targets, WAYS);
  const head = {
    "head/weight": product(output, scores, width, examples, WAYS, true),
    "head/bias": columnSums(scores, WAYS),
  };
  if (frozen) return head;
  const ofFeatures = product(scores, transposed(params["head/weight"], width, WAYS), examples, WAYS, width);
  return { ...head, ...embedBackward(params, features, embedded, ofFeatures) };
}
