"use strict";
// Decodes the text in models.js and tasks.js to numbers.

/** @param {string} text in base64 @returns {Uint8Array} */
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** @param {number} half the bits of a finite float16 @returns {number} */
function fromFloat16(half) {
  const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

/**
 * @typedef {object} Stored a model as stored in models.js
 * @property {string} name
 * @property {string} title
 * @property {"mean" | "flatten"} features
 * @property {"sgd" | "persistent_adam"} rule
 * @property {number} rate
 * @property {boolean} headOnly whether the algorithm adapts only the head, as ANIL does
 * @property {number} trainedSteps inner steps in training
 * @property {Record<string, number>} sizes of the arrays, in their order
 * @property {string} float16 the concatenated arrays, in base64
 */

const STORED = /** @type {Stored[]} */ (/** @type {unknown} */ (MODELS));

/** @param {Stored} stored @returns {Params} all arrays by name */
function arraysOf({ sizes, float16 }) {
  const halves = new DataView(bytesOf(float16).buffer), arrays = /** @type {Params} */ ({});
  let at = 0;
  for (const [name, size] of Object.entries(sizes)) {
    const from = at;
    arrays[name] = Floats.from({ length: size }, (_, i) => fromFloat16(halves.getUint16(from + 2 * i, true)));
    at += 2 * size;
  }
  return arrays;
}

/**
 * A model as the inner loop takes it; moments are stored as their square roots.
 * @param {Stored} stored @returns {Model}
 */
function modelOf(stored) {
  const params = /** @type {Params} */ ({}), moments = /** @type {Params} */ ({});
  for (const [name, array] of Object.entries(arraysOf(stored)))
    if (name.startsWith("moments/")) moments[name.slice("moments/".length)] = array.map((root) => root * root);
    else params[name] = array;
  return { ...stored, params, moments: stored.rule === "persistent_adam" ? moments : null };
}

/**
 * Drawings from bits packed by `numpy.packbits`.
 * @param {string} text @param {number} count
 * @returns {Uint8Array[]} 1 where there is ink, `[DRAWN * DRAWN]` each
 */
function drawingsOf(text, count) {
  const bytes = bytesOf(text), pixels = DRAWN * DRAWN;
  const bit = (/** @type {number} */ i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1;
  return Array.from({ length: count }, (_, n) => Uint8Array.from({ length: pixels }, (_, i) => bit(n * pixels + i)));
}
