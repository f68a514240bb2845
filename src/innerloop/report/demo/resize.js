"use strict";
// From a drawing to the network's input, shrunk like Omniglot's pictures for training: Lanczos, as in Pillow.

const DRAWN = 105; // pixels per side of an Omniglot drawing

/** @param {number} x @returns {number} */
function lanczos(x) {
  if (x === 0) return 1;
  const a = Math.PI * x;
  return Math.abs(x) < 3 ? (3 * Math.sin(a) * Math.sin(a / 3)) / (a * a) : 0;
}

/** For each output pixel of a line: the input pixels it is made of, and their weights, which sum to 1. */
const WINDOWS = Array.from({ length: SIDE }, (_, to) => {
  const ratio = DRAWN / SIDE, centre = (to + 0.5) * ratio;
  const first = Math.max(0, Math.floor(centre - 3 * ratio + 0.5));
  const end = Math.min(DRAWN, Math.floor(centre + 3 * ratio + 0.5));
  const weights = Array.from({ length: end - first }, (_, i) => lanczos((first + i - centre + 0.5) / ratio));
  const sum = weights.reduce((a, b) => a + b);
  return { first, weights: weights.map((weight) => weight / sum) };
});

/**
 * Shrink every line, and round to bytes; line `r` of the input becomes column `r` of the output.
 * @param {ArrayLike<number>} page `[rows, DRAWN]` @param {number} rows
 * @returns {Uint8ClampedArray} `[SIDE, rows]`
 */
function shrunk(page, rows) {
  const small = new Uint8ClampedArray(SIDE * rows);
  for (let row = 0; row < rows; row++)
    WINDOWS.forEach(({ first, weights }, to) => {
      const from = row * DRAWN + first;
      small[to * rows + row] = Math.round(weights.reduce((sum, weight, i) => sum + weight * page[from + i], 0));
    });
  return small;
}

/**
 * @param {Uint8Array} ink 1 where there is ink, `[DRAWN * DRAWN]`
 * @returns {Floats} ink between 0 and 1, `[28, 28]`
 */
function imageOf(ink) {
  const page = ink.map((bit) => (bit ? 0 : 255)); // shrunk as black on white, like Omniglot's files
  return Floats.from(shrunk(shrunk(page, DRAWN), SIDE), (value) => (255 - value) / 255);
}

/** @param {Uint8Array[]} drawings @returns {Floats} `[drawings, 28, 28, 1]` */
function imagesOf(drawings) {
  const images = new Floats(drawings.length * SIDE * SIDE);
  drawings.forEach((ink, n) => images.set(imageOf(ink), n * SIDE * SIDE));
  return images;
}
