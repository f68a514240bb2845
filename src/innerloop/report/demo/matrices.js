"use strict";
// Matrices as flat arrays of doubles, row after row. The functions of all scripts are global: modules do not load from
// a folder of files.

/**
 * The product of two matrices in doubles; `product` in simd.js is faster where there is WebAssembly.
 * @param {Float64Array} a `[rows, inner]`
 * @param {Float64Array} b `[inner, columns]`
 * @param {number} rows
 * @param {number} inner
 * @param {number} columns
 * @returns {Float64Array} `[rows, columns]`
 */
function productInDoubles(a, b, rows, inner, columns) {
  const c = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++)
    for (let k = 0; k < inner; k++) {
      const x = a[i * inner + k];
      if (x === 0) continue; // half of what a ReLU lets through, and the page around a stroke
      for (let j = 0; j < columns; j++) c[i * columns + j] += x * b[k * columns + j];
    }
  return c;
}

/**
 * @param {Float64Array} a `[rows, columns]` @param {number} rows @param {number} columns
 * @returns {Float64Array} `[columns, rows]`
 */
function transposed(a, rows, columns) {
  const t = new Float64Array(a.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) t[j * rows + i] = a[i * columns + j];
  return t;
}

/**
 * The sum of every column.
 * @param {Float64Array} a `[rows, columns]` @param {number} columns
 * @returns {Float64Array} `[columns]`
 */
function columnSums(a, columns) {
  const sums = new Float64Array(columns);
  for (let i = 0; i < a.length; i += columns) for (let j = 0; j < columns; j++) sums[j] += a[i + j];
  return sums;
}
