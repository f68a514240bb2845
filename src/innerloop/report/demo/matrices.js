"use strict";
// Matrices as flat row-major arrays.

/**
 * The product of two matrices, like `product` in simd.js.
 * @param {Floats} a `[rows, inner]`, or `[inner, rows]` if `turned`
 * @param {Floats} b `[inner, columns]`
 * @param {number} rows
 * @param {number} inner
 * @param {number} columns
 * @param {boolean} turned
 * @returns {Floats} `[rows, columns]`
 */
function slowProduct(a, b, rows, inner, columns, turned = false) {
  const c = new Floats(rows * columns);
  for (let i = 0; i < rows; i++)
    for (let k = 0; k < inner; k++) {
      const x = a[turned ? k * rows + i : i * inner + k];
      if (x === 0) continue; // half of a ReLU's outputs, and the background of a drawing
      for (let j = 0; j < columns; j++) c[i * columns + j] += x * b[k * columns + j];
    }
  return c;
}

/**
 * @param {Floats} a `[rows, columns]` @param {number} rows @param {number} columns
 * @returns {Floats} `[columns, rows]`
 */
function transposed(a, rows, columns) {
  const t = new Floats(a.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) t[j * rows + i] = a[i * columns + j];
  return t;
}

/**
 * The sum of every column.
 * @param {Floats} a `[rows, columns]` @param {number} columns
 * @returns {Floats} `[columns]`
 */
function columnSums(a, columns) {
  const sums = new Floats(columns);
  for (let i = 0; i < a.length; i += columns) for (let j = 0; j < columns; j++) sums[j] += a[i + j];
  return sums;
}
