"use strict";
// Matrix products in float32, four numbers at a time: WebAssembly has SIMD instructions, JavaScript has none.
// The only function needed computes a tile of the product; it is assembled here:
//
//   tile(a0, a1, a2, a3, b, c0, c1, c2, c3, inner, stride, step):
//     c[r][0..7] = sum over k < inner of a[r][k] * b[k][0..7]
//
// All arguments but `inner` are in bytes: the starts of rows, the stride between rows of b, and that from a[r][k] to
// a[r][k + 1].
//
// All scripts define global functions, since browsers do not load modules from file: URLs.

const ROWS = 4, COLUMNS = 8; // of a tile
const A = [0, 1, 2, 3], B = 4, C = [5, 6, 7, 8], INNER = 9, STRIDE = 10, STEP = 11; // numbers of the parameters
const SUM = 12, LOADED = 20, FACTOR = 22; // locals: eight sums, the two halves of a row of b, one number of a
const INT = 0x7f, VECTOR = 0x7b, END = 0x0b;
const SPLAT = [0xfd, 0x09, 2, 0], MULTIPLY = [0xfd, 0xe6, 0x01], ADD = [0xfd, 0xe4, 0x01];

const get = (/** @type {number} */ local) => [0x20, local];
const set = (/** @type {number} */ local) => [0x21, local];
const load = (/** @type {number} */ offset) => [0xfd, 0x00, 2, offset];
const store = (/** @type {number} */ offset) => [0xfd, 0x0b, 2, offset];
const advance = (/** @type {number} */ pointer, /** @type {number} */ by) =>
  [...get(pointer), ...get(by), 0x6a, ...set(pointer)];

/** @param {number} sum @param {number} half @returns {number[]} sum += factor * half */
const accumulate = (sum, half) => [...get(sum), ...get(FACTOR), ...get(half), ...MULTIPLY, ...ADD, ...set(sum)];

/** @returns {number[]} the instructions of `tile` */
function instructions() {
  const halves = [0, 1].flatMap((h) => [...get(B), ...load(16 * h), ...set(LOADED + h)]);
  const sums = A.flatMap((pointer, r) =>
    [...get(pointer), ...SPLAT, ...set(FACTOR), ...[0, 1].flatMap((h) => accumulate(SUM + 2 * r + h, LOADED + h))]);
  const next = [...A.flatMap((pointer) => advance(pointer, STEP)), ...advance(B, STRIDE)];
  const again = [...get(INNER), 0x41, 1, 0x6b, 0x22, INNER, 0x0d, 0]; // unless --inner is 0
  const results = C.flatMap((pointer, r) =>
    [0, 1].flatMap((h) => [...get(pointer), ...get(SUM + 2 * r + h), ...store(16 * h)]));
  return [0x03, 0x40, ...halves, ...sums, ...next, ...again, END, ...results, END];
}

/** @param {number[]} content @returns {number[]} its length in two groups of seven bits, followed by the content */
const sized = (content) => [(content.length & 127) | 128, content.length >> 7, ...content];

/** @returns {Uint8Array<ArrayBuffer>} the module, which imports its memory as m.m and exports `tile` as t */
function assembled() {
  const parameters = STEP + 1, locals = FACTOR - SUM + 1;
  const type = sized([1, 0x60, parameters, ...Array(parameters).fill(INT), 0]);
  const memory = sized([1, 1, 0x6d, 1, 0x6d, 2, 0, 1]), named = sized([1, 1, 0x74, 0, 0]);
  const code = sized([1, ...sized([1, locals, VECTOR, ...instructions()])]);
  const sections = [1, ...type, 2, ...memory, 3, ...sized([1, 0]), 7, ...named, 10, ...code];
  return Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...sections]);
}

/** Whether the browser can run it; if not, all numbers are doubles and the page is slower. */
const SIMD = typeof WebAssembly === "object" && WebAssembly.validate(assembled());

/** @typedef {Float64Array} Floats float32 as in Python, or doubles; typed as the latter, which have the same methods */
const Floats = SIMD ? /** @type {Float64ArrayConstructor} */ (/** @type {unknown} */ (Float32Array)) : Float64Array;

/**
 * Matrix products that use a module's tile function.
 * @param {Uint8Array<ArrayBuffer>} bytes the module
 * @returns {typeof slowProduct}
 */
function fastProduct(bytes) {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const tile = /** @type {(...addresses: number[]) => void} */ (
    new WebAssembly.Instance(new WebAssembly.Module(bytes), { m: { m: memory } }).exports.t);
  return (a, b, rows, inner, columns, turned = false) => {
    const width = Math.ceil(columns / COLUMNS) * COLUMNS, fromB = a.length, fromC = fromB + inner * width;
    const numbers = numbersOf(memory, fromC + rows * width), [step, next] = turned ? [rows, 1] : [1, inner];
    numbers.set(a);
    copyRows(b, columns, numbers.subarray(fromB), width, inner);
    for (let i = 0; i < rows; i += ROWS) {
      const row = A.map((r) => Math.min(i + r, rows - 1)); // repeats the last row past the end
      const [a0, a1, a2, a3] = row.map((r) => 4 * r * next);
      const [c0, c1, c2, c3] = row.map((r) => 4 * (fromC + r * width));
      for (let j = 0; j < 4 * width; j += 4 * COLUMNS)
        tile(a0, a1, a2, a3, 4 * fromB + j, c0 + j, c1 + j, c2 + j, c3 + j, inner, 4 * width, 4 * step);
    }
    const c = new Floats(rows * columns);
    copyRows(numbers.subarray(fromC), width, c, columns, rows);
    return c;
  };
}

/** @param {WebAssembly.Memory} memory @param {number} count @returns {Float32Array} at least `count` numbers */
function numbersOf(memory, count) {
  const lacking = 4 * count - memory.buffer.byteLength;
  if (lacking > 0) memory.grow(Math.ceil(lacking / 65536));
  return new Float32Array(memory.buffer);
}

/**
 * Copy rows into longer or shorter rows.
 * @param {Floats | Float32Array} from `[rows, wide]` @param {number} wide
 * @param {Floats | Float32Array} to `[rows, width]` @param {number} width @param {number} rows
 */
function copyRows(from, wide, to, width, rows) {
  const common = Math.min(wide, width);
  if (wide === width) to.set(from.subarray(0, rows * wide));
  else for (let i = 0; i < rows; i++) to.set(from.subarray(i * wide, i * wide + common), i * width);
}

/** The product of two matrices; see `slowProduct` for the arguments. */
const product = SIMD ? fastProduct(assembled()) : slowProduct;
