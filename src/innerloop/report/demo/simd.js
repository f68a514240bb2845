"use strict";
// Products of matrices in float32, four numbers at a time: JavaScript has no such instructions, WebAssembly has. The one
// function it needs is assembled here, a tile of the product:
//
//   tile(a0, a1, a2, a3, b, c0, c1, c2, c3, inner, stride):  c[r][0..7] = sum over k < inner of a[r][k] * b[k][0..7]
//
// All are addresses in bytes but `inner`; `stride` is the length of a row of b.

const ROWS = 4, COLUMNS = 8; // of a tile
const [B, INNER, STRIDE] = [4, 9, 10]; // numbers of the parameters
const A = [0, 1, 2, 3], C = [5, 6, 7, 8];
const SUM = 11, LOADED = 19, FACTOR = 21; // locals: eight sums, two quarters of a row of b, one number of a

const get = (/** @type {number} */ local) => [0x20, local];
const set = (/** @type {number} */ local) => [0x21, local];
const load = (/** @type {number} */ offset) => [0xfd, 0x00, 2, offset];
const store = (/** @type {number} */ offset) => [0xfd, 0x0b, 2, offset];
const LOAD_SPLAT = [0xfd, 0x09, 2, 0], MULTIPLY = [0xfd, 0xe6, 0x01], ADD = [0xfd, 0xe4, 0x01];
const INT = 0x7f, VECTOR = 0x7b, END = 0x0b;

/** @param {number} pointer @param {number[]} amount @returns {number[]} */
const advance = (pointer, amount) => [...get(pointer), ...amount, 0x6a, ...set(pointer)];

/** @returns {number[]} the instructions of `tile` */
function instructions() {
  const row = (/** @type {number} */ r) => [...get(A[r]), ...LOAD_SPLAT, ...set(FACTOR), ...half(r, 0), ...half(r, 1)];
  const half = (/** @type {number} */ r, /** @type {number} */ h) =>
    [...get(SUM + 2 * r + h), ...get(FACTOR), ...get(LOADED + h), ...MULTIPLY, ...ADD, ...set(SUM + 2 * r + h)];
  const loads = [0, 1].flatMap((h) => [...get(B), ...load(16 * h), ...set(LOADED + h)]);
  const next = [...A.flatMap((pointer) => advance(pointer, [0x41, 4])), ...advance(B, get(STRIDE))];
  const again = [...get(INNER), 0x41, 1, 0x6b, 0x22, INNER, 0x0d, 0];
  const loop = [0x03, 0x40, ...loads, ...[0, 1, 2, 3].flatMap(row), ...next, ...again, END];
  const keep = [0, 1].flatMap((h) => C.flatMap((pointer, r) => [...get(pointer), ...get(SUM + 2 * r + h), ...store(16 * h)]));
  return [...loop, ...keep, END];
}

/** @param {number} id @param {number[]} content @returns {number[]} a section, or a function body without an id */
const sized = (content, ...id) => [...id, (content.length & 127) | 128, content.length >> 7, ...content];

/** @returns {Uint8Array} the module, which imports its memory as m.m and exports `tile` as t */
function assembled() {
  const code = [1, FACTOR - SUM + 1, VECTOR, ...instructions()];
  const sections = [
    sized([1, 0x60, STRIDE + 1, ...Array(STRIDE + 1).fill(INT), 0], 1),
    sized([1, 1, 0x6d, 1, 0x6d, 2, 0, 1], 2),
    sized([1, 0], 3),
    sized([1, 1, 0x74, 0, 0], 7),
    sized([1, ...sized(code)], 10),
  ];
  return Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...sections.flat()]);
}

/**
 * `product` with a tile of WebAssembly.
 * @param {Uint8Array} bytes the module
 * @returns {typeof productInDoubles}
 */
function simdProduct(bytes) {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const { t: tile } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { m: { m: memory } }).exports;
  return (a, b, rows, inner, columns) => {
    const width = Math.ceil(columns / COLUMNS) * COLUMNS, fromB = a.length, fromC = fromB + inner * width;
    const lacking = 4 * (fromC + rows * width) - memory.buffer.byteLength;
    if (lacking > 0) memory.grow(Math.ceil(lacking / 65536));
    const numbers = new Float32Array(memory.buffer);
    numbers.set(a);
    copyRows(b, columns, numbers, fromB, width, inner);
    const line = (/** @type {number} */ i, /** @type {number} */ r) => Math.min(i + r, rows - 1); // the last row again
    for (let i = 0; i < rows; i += ROWS) {
      const from = A.map((r) => 4 * line(i, r) * inner), to = A.map((r) => 4 * (fromC + line(i, r) * width));
      for (let j = 0; j < 4 * width; j += 4 * COLUMNS)
        tile(from[0], from[1], from[2], from[3], 4 * fromB + j, to[0] + j, to[1] + j, to[2] + j, to[3] + j, inner, 4 * width);
    }
    return gathered(numbers, fromC, rows, width, columns);
  };
}

/** Copy rows to longer ones; what lies beyond is never read again. */
function copyRows(b, columns, numbers, start, width, rows) {
  if (columns === width) numbers.set(b, start);
  else for (let k = 0; k < rows; k++) numbers.set(b.subarray(k * columns, (k + 1) * columns), start + k * width);
}

/** @returns {Float64Array} `[rows, columns]` from rows of `width` numbers */
function gathered(numbers, start, rows, width, columns) {
  const c = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) c.set(numbers.subarray(start + i * width, start + i * width + columns), i * columns);
  return c;
}

/** The product of two matrices, as productInDoubles; in float32 where the browser can. */
const product = WebAssembly.validate(assembled()) ? simdProduct(assembled()) : productInDoubles;
