"use strict";
// The layers of Conv4, each as a forward function and a backward one. Layouts are those of `innerloop.nn`: images
// `[examples, side, side, channels]`, kernels `[3, 3, channels, filters]`.

const EPSILON = 1e-3; // of the batch normalisation, as in innerloop.nn.layers

/**
 * The geometry of a 3x3 kernel with stride 2 and SAME padding.
 * @param {number} side of the input
 * @returns {{out: number, low: number}} the side of the output, and the zeros before the first pixel
 */
function strided(side) {
  const out = Math.ceil(side / 2);
  return { out, low: Math.floor(Math.max(2 * (out - 1) + 3 - side, 0) / 2) };
}

/**
 * Call `visit(image, patch)` with the offsets of the channels of every pixel under the kernel at every place.
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
 * The patches under the kernel (im2col).
 * @param {Floats} images `[examples, side, side, channels]`
 * @param {number} examples @param {number} side @param {number} channels
 * @returns {Floats} `[examples * out * out, 9 * channels]`
 */
function patchesOf(images, examples, side, channels) {
  const patches = new Floats(examples * strided(side).out ** 2 * 9 * channels);
  eachPixel(examples, side, channels, (image, patch) => {
    patches.set(images.subarray(image, image + channels), patch);
  });
  return patches;
}

/**
 * The gradient of the images from the gradient of their patches.
 * @param {Floats} patches @param {number} examples @param {number} side @param {number} channels
 * @returns {Floats} `[examples, side, side, channels]`
 */
function patchesBackward(patches, examples, side, channels) {
  const images = new Floats(examples * side * side * channels);
  eachPixel(examples, side, channels, (image, patch) => {
    for (let c = 0; c < channels; c++) images[image + c] += patches[patch + c];
  });
  return images;
}

/**
 * Normalise every channel by the batch statistics, then apply ReLU.
 * @param {Floats} x `[rows, channels]` @param {Floats} scale @param {Floats} offset
 * @returns {{x: Floats, mean: Floats, inverse: Floats, output: Floats}} `inverse` is 1 / standard deviation
 */
function batchNormRelu(x, scale, offset) {
  const channels = scale.length, rows = x.length / channels;
  const mean = columnSums(x, channels).map((sum) => sum / rows), squares = new Floats(channels);
  for (let i = 0; i < x.length; i += channels)
    for (let c = 0; c < channels; c++) squares[c] += (x[i + c] - mean[c]) ** 2;
  const inverse = squares.map((sum) => 1 / Math.sqrt(sum / rows + EPSILON));
  const factor = inverse.map((value, c) => value * scale[c]), output = new Floats(x.length);
  for (let i = 0; i < x.length; i += channels)
    for (let c = 0; c < channels; c++) {
      const y = (x[i + c] - mean[c]) * factor[c] + offset[c];
      output[i + c] = y > 0 ? y : 0;
    }
  return { x, mean, inverse, output };
}

/**
 * @param {Floats} gradient of the output, `[rows, channels]`
 * @param {ReturnType<typeof batchNormRelu>} kept what the forward function returned
 * @param {Floats} scale
 * @returns {{x: Floats, scale: Floats, offset: Floats}} the gradients
 */
function batchNormReluBackward(gradient, { x, mean, inverse, output }, scale) {
  const channels = scale.length, rows = gradient.length / channels, ofX = new Floats(gradient.length);
  const scales = new Floats(channels), offsets = new Floats(channels);
  for (let i = 0; i < x.length; i += channels)
    for (let c = 0; c < channels; c++) {
      if (output[i + c] === 0) continue; // where the ReLU is closed
      scales[c] += gradient[i + c] * (x[i + c] - mean[c]) * inverse[c];
      offsets[c] += gradient[i + c];
    }
  for (let i = 0; i < x.length; i += channels)
    for (let c = 0; c < channels; c++) {
      const open = output[i + c] === 0 ? 0 : gradient[i + c], normalised = (x[i + c] - mean[c]) * inverse[c];
      ofX[i + c] = scale[c] * inverse[c] * (open - (offsets[c] + normalised * scales[c]) / rows);
    }
  return { x: ofX, scale: scales, offset: offsets };
}

/**
 * @param {Floats} x `[examples, places, channels]` @param {number} examples @param {number} channels
 * @returns {Floats} the mean over places, `[examples, channels]`
 */
function meanOverPlaces(x, examples, channels) {
  const places = x.length / examples / channels;
  const means = new Floats(examples * channels);
  x.forEach((value, i) => {
    means[Math.floor(i / (places * channels)) * channels + (i % channels)] += value / places;
  });
  return means;
}

/**
 * @param {Floats} gradient `[examples, channels]` @param {number} places @param {number} channels
 * @returns {Floats} `[examples, places, channels]`
 */
function meanOverPlacesBackward(gradient, places, channels) {
  const x = new Floats(gradient.length * places);
  return x.map((_, i) => gradient[Math.floor(i / (places * channels)) * channels + (i % channels)] / places);
}

/**
 * @param {Floats} scores `[examples, ways]` @param {number} ways
 * @returns {Floats} the probabilities of the classes, `[examples, ways]`
 */
function softmax(scores, ways) {
  const probabilities = new Floats(scores.length);
  for (let i = 0; i < scores.length; i += ways) {
    const row = scores.subarray(i, i + ways), most = Math.max(...row);
    const powers = row.map((score) => Math.exp(score - most));
    const sum = powers.reduce((a, b) => a + b);
    probabilities.set(powers.map((power) => power / sum), i);
  }
  return probabilities;
}

/**
 * The gradient of the mean of -log softmax(scores) at the targets.
 * @param {Floats} scores `[examples, ways]` @param {number[]} targets @param {number} ways
 * @returns {Floats} the gradient of the scores, `[examples, ways]`
 */
function crossEntropyBackward(scores, targets, ways) {
  const gradient = softmax(scores, ways);
  targets.forEach((target, i) => (gradient[i * ways + target] -= 1));
  return gradient.map((value) => value / targets.length);
}
