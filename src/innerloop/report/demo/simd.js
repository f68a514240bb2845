"use strict";
// Products of matrices in float32, four numbers at a time: WebAssembly has instructions for that, JavaScript has none.
// One function is needed, a tile of the product, and it is assembled here:
//
//   tile(a0, a1, a2, a3, b, c0, c1, c2, c3, inner, stride):  c[r][0..7] = sum over k < inner of a[r][k] * b[k][0..7]
//
// All arguments but `inner` are in bytes: where rows begin, and the length of a row of b.

const ROWS = 4, COLUMNS = 8; // of a tile
const A = [0, 1, 2, 3], B = 4, C = [5, 6, 7, 8], INNER = 9, STRIDE = 10; // numbers of the parameters
const SUM = 11, LOADED = 19, FACTOR = 21; // locals: eight sums, the two halves of a row of b, one number of a
const INT = 0x7f, VECTOR = 0x7b, END = 0x0b;
const SPLAT = [0xfd, 0x09, 2, 0], MULTIPLY = [0xfd, 0xe6, 0x01], ADD = [0xfd, 0xe4, 0x01];

const get = (/** @type {number} */ local) => [0x20, local];
const set = (/** @type {number} */ local) => [0x21, local];
const load = (/** @type {number} */ offset) => [0xfd, 0x00, 2, offset];
const store = (/** @type {number} */ offset) => [0xfd, 0x0b, 2, offset];
const advance = (/** @type {number} */ pointer, /** @type {number[]} */ amount) =>
  [...get(pointer), ...amount, 0x6a, ...set(pointer)];

/** @param {number} sum @param {number} half @returns {number[]} sum += factor * half */
const accumulate = (sum, half) => [...get(sum), ...get(FACTOR), ...get(half), ...MULTIPLY, ...ADD, ...set(sum)];

/** @returns {number[]} the instructions of `tile` */
function instructions() {
  const halves = [0, 1].flatMap((h) => [...get(B), ...load(16 * h), ...set(LOADED + h)]);
  const sums = A.flatMap((pointer, r) =>
    [...get(pointer), ...SPLAT, ...set(FACTOR), ...[0, 1].flatMap((h) => accumulate(SUM + 2 * r + h, LOADED + h))]);
  const next = [...A.flatMap((pointer) => advance(pointer, [0x41, 4])), ...advance(B, get(STRIDE))];
  const again = [...get(INNER), 0x41, 1, 0x6b, 0x22, INNER, 0x0d, 0]; // unless --inner is 0
  const results = C.flatMap((pointer, r) =>
    [0, 1].flatMap((h) => [...get(pointer), ...get(SUM + 2 * r + h), ...store(16 * h)]));
  return [0x03, 0x40, ...halves, ...sums, ...next, ...again, END, ...results, END];
}

/** @param {number[]} content @returns {number[]} its length, in two groups of seven bits, and itself */
const sized = (content) => [(content.length & 127) | 128, content.length >> 7, ...content];

/** @returns {Uint8Array<ArrayBuffer>} the module, which imports its memory as m.m and exports `tile` as t */
function assembled() {
  const parameters = STRIDE + 1, locals = FACTOR - SUM + 1;
  const type = sized([1, 0x60, parameters, ...Array(parameters).fill(INT), 0]);
  const memory = sized([1, 1, 0x6d, 1, 0x6d, 2, 0, 1]), named = sized([1, 1, 0x74, 0, 0]);
  const code = sized([1, ...sized([1, locals, VECTOR, ...instructions()])]);
  const sections = [1, ...type, 2, ...memory, 3, ...sized([1, 0]), 7, ...named, 10, ...code];
  return Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...sections]);
}

/**
 * The product of matrices with a module's tile.
 * @param {Uint8Array<ArrayBuffer>} bytes the module
 * @returns {typeof productInDoubles}
 */
function simdProduct(bytes) {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const tile = /** @type {(...addresses: number[]) => void} */ (
    new WebAssembly.Instance(new WebAssembly.Module(bytes), { m: { m: memory } }).exports.t);
  return (a, b, rows, inner, columns) => {
    const width = Math.ceil(columns / COLUMNS) * COLUMNS, fromB = a.length, fromC = fromB + inner * width;
    const numbers = numbersOf(memory, fromC + rows * width);
    numbers.set(a);
    for (let k = 0; k < inner; k++) numbers.set(b.subarray(k * columns, (k + 1) * columns), fromB + k * width);
    for (let i = 0; i < rows; i += ROWS) {
      const row = A.map((r) => Math.min(i + r, rows - 1)); // the last row again where there are no more
      const [a0, a1, a2, a3] = row.map((r) => 4 * r * inner);
      const [c0, c1, c2, c3] = row.map((r) => 4 * (fromC + r * width));
      for (let j = 0; j < 4 * width; j += 4 * COLUMNS)
        tile(a0, a1, a2, a3, 4 * fromB + j, c0 + j, c1 + j, c2 + j, c3 + j, inner, 4 * width);
    }
    return withoutPadding(numbers.subarray(fromC), rows, width, columns);
  };
}

/** @param {WebAssembly.Memory} memory @param {number} count @returns {Float32Array} all of it, `count` numbers at least */
function numbersOf(memory, count) {
  const lacking = 4 * count - memory.buffer.byteLength;
  if (lacking > 0) memory.grow(Math.ceil(lacking / 65536));
  return new Float32Array(memory.buffer);
}

/**
 * @param {Float32Array} padded `[rows, width]` @param {number} rows @param {number} width @param {number} columns
 * @returns {Float64Array} `[rows, columns]`
 */
function withoutPadding(padded, rows, width, columns) {
  const c = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) c.set(padded.subarray(i * width, i * width + columns), i * columns);
  return c;
}

/** The product of two matrices, as productInDoubles; in float32 where the browser can. */
const product = WebAssembly.validate(assembled()) ? simdProduct(assembled()) : productInDoubles;
