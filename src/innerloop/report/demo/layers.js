"use strict";
// The layers of Conv4, each as a forward function and a backward one. Layouts are those of `innerloop.nn`: images
// `[examples, side, side, channels]`, kernels `[3, 3, channels, filters]`.

const EPSILON = 1e-3; // of the batch normalisation, as in innerloop.nn.layers

/**
 * Where a 3x3 kernel of stride 2 meets its input, with SAME padding.
 * @param {number} side of the input
 * @returns {{out: number, low: number}} the side of the output, and the zeros before the first pixel
 */
function strided(side) {
  const out = Math.ceil(side / 2);
  return { out, low: Math.floor(Math.max(2 * (out - 1) + 3 - side, 0) / 2) };
}

/**
 * Call `visit(inImage, inPatch)` for every pixel below the kernel at every place: where its channels begin.
 * @param {number} examples @param {number} side @param {number} channels
 * @param {(image: number, patch: number) => void} visit
 */
function eachPixel(examples, side, channels, visit) {
  const { out, low } = strided(side);
  let patch = 0;
  for (let n = 0; n < examples; n++)
    for (let place = 0; place < out * out; place++)
      for (let tap = 0; tap < 9; tap++, patch += channels) {
        const y = 2 * Math.floor(place / out) + Math.floor(tap / 3) - low;
        const x = 2 * (place % out) + (tap % 3) - low;
        if (y >= 0 && y < side && x >= 0 && x < side) visit(((n * side + y) * side + x) * channels, patch);
      }
}

/**
 * The patches below the kernel (im2col).
 * @param {Float64Array} images `[examples, side, side, channels]`
 * @param {number} examples @param {number} side @param {number} channels
 * @returns {Float64Array} `[examples * out * out, 9 * channels]`
 */
function patchesOf(images, examples, side, channels) {
  const patches = new Float64Array(examples * strided(side).out ** 2 * 9 * channels);
  eachPixel(examples, side, channels, (image, patch) => {
    patches.set(images.subarray(image, image + channels), patch);
  });
  return patches;
}

/**
 * The gradient of the images from that of their patches.
 * @param {Float64Array} patches @param {number} examples @param {number} side @param {number} channels
 * @returns {Float64Array} `[examples, side, side, channels]`
 */
function patchesBackward(patches, examples, side, channels) {
  const images = new Float64Array(examples * side * side * channels);
  eachPixel(examples, side, channels, (image, patch) => {
    for (let c = 0; c < channels; c++) images[image + c] += patches[patch + c];
  });
  return images;
}

/**
 * Normalise every channel by the statistics of the batch, then ReLU.
 * @param {Float64Array} x `[rows, channels]` @param {Float64Array} scale @param {Float64Array} offset
 * @returns {{output: Float64Array, normalised: Float64Array, inverse: Float64Array}} `inverse` is 1 / deviation
 */
function batchNormRelu(x, scale, offset) {
  const channels = scale.length, rows = x.length / channels, mean = columnSums(x, channels);
  const normalised = new Float64Array(x.length), output = new Float64Array(x.length);
  const squares = new Float64Array(channels);
  for (let i = 0; i < x.length; i += channels)
    for (let c = 0; c < channels; c++) {
      const centred = x[i + c] - mean[c] / rows;
      normalised[i + c] = centred;
      squares[c] += centred * centred;
    }
  const inverse = squares.map((sum) => 1 / Math.sqrt(sum / rows + EPSILON));
  for (let i = 0; i < x.length; i += channels)
    for (let c = 0; c < channels; c++) {
      normalised[i + c] *= inverse[c];
      const y = normalised[i + c] * scale[c] + offset[c];
      output[i + c] = y > 0 ? y : 0;
    }
  return { output, normalised, inverse };
}

/**
 * @param {Float64Array} gradient of the output, `[rows, channels]`
 * @param {ReturnType<typeof batchNormRelu>} kept what the forward function returned
 * @param {Float64Array} scale
 * @returns {{x: Float64Array, scale: Float64Array, offset: Float64Array}} the gradients
 */
function batchNormReluBackward(gradient, { output, normalised, inverse }, scale) {
  const channels = scale.length, rows = gradient.length / channels, x = new Float64Array(gradient.length);
  const scales = new Float64Array(channels), offsets = new Float64Array(channels);
  for (let i = 0; i < x.length; i += channels)
    for (let c = 0; c < channels; c++) {
      const open = output[i + c] > 0 ? gradient[i + c] : 0;
      x[i + c] = open;
      scales[c] += open * normalised[i + c];
      offsets[c] += open;
    }
  for (let i = 0; i < x.length; i += channels)
    for (let c = 0; c < channels; c++)
      x[i + c] = scale[c] * inverse[c] * (x[i + c] - (offsets[c] + normalised[i + c] * scales[c]) / rows);
  return { x, scale: scales, offset: offsets };
}

/**
 * @param {Float64Array} x `[examples, places, channels]` @param {number} examples @param {number} channels
 * @returns {Float64Array} the mean over places, `[examples, channels]`
 */
function meanOverPlaces(x, examples, channels) {
  const places = x.length / examples / channels;
  const means = new Float64Array(examples * channels);
  x.forEach((value, i) => {
    means[Math.floor(i / (places * channels)) * channels + (i % channels)] += value / places;
  });
  return means;
}

/**
 * @param {Float64Array} gradient `[examples, channels]` @param {number} places @param {number} channels
 * @returns {Float64Array} `[examples, places, channels]`
 */
function meanOverPlacesBackward(gradient, places, channels) {
  const x = new Float64Array(gradient.length * places);
  return x.map((_, i) => gradient[Math.floor(i / (places * channels)) * channels + (i % channels)] / places);
}

/**
 * @param {Float64Array} scores `[examples, ways]` @param {number} ways
 * @returns {Float64Array} the probabilities of the classes, `[examples, ways]`
 */
function softmax(scores, ways) {
  const probabilities = new Float64Array(scores.length);
  for (let i = 0; i < scores.length; i += ways) {
    const row = scores.subarray(i, i + ways), most = Math.max(...row);
    const powers = row.map((score) => Math.exp(score - most));
    const sum = powers.reduce((a, b) => a + b);
    probabilities.set(powers.map((power) => power / sum), i);
  }
  return probabilities;
}

/**
 * The mean of -log softmax(scores) at the targets.
 * @param {Float64Array} scores `[examples, ways]` @param {number[]} targets @param {number} ways
 * @returns {number}
 */
function crossEntropy(scores, targets, ways) {
  const probabilities = softmax(scores, ways);
  return -targets.reduce((sum, target, i) => sum + Math.log(probabilities[i * ways + target]), 0) / targets.length;
}

/**
 * @param {Float64Array} scores @param {number[]} targets @param {number} ways
 * @returns {Float64Array} the gradient of the scores, `[examples, ways]`
 */
function crossEntropyBackward(scores, targets, ways) {
  const gradient = softmax(scores, ways);
  targets.forEach((target, i) => (gradient[i * ways + target] -= 1));
  return gradient.map((value) => value / targets.length);
}
