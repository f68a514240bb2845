"use strict";
// A square to draw in, with a mouse, a pen, a finger or the keyboard.

const PEN = 1.5; // radius in pixels of the drawing: strokes as wide as Omniglot's
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Create an element with attributes and with children that are elements or text.
 * @param {string} name @param {Record<string, string>} attributes @param {(Node | string)[]} children
 * @returns {HTMLElement}
 */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A drawing of DRAWN by DRAWN pixels. `onChange` is called whenever the visitor changes it. */
class Pad {
  /** @param {string} what "Example" or "Query" @param {string} label of the class @param {() => void} onChange */
  constructor(what, label, onChange) {
    this.ink = new Uint8Array(DRAWN * DRAWN);
    this.pen = { x: DRAWN / 2, y: DRAWN / 2, down: false, shown: false };
    this.what = what;
    this.label = label;
    this.onChange = onChange;
    this.canvas = /** @type {HTMLCanvasElement} */ (
      element("canvas", { width: `${DRAWN}`, height: `${DRAWN}`, tabindex: "0", role: "application" })
    );
    this.canvas.setAttribute("aria-describedby", "keys");
    const clear = element("button", { type: "button", "aria-label": `Clear ${what.toLowerCase()} ${label}` }, "Clear");
    clear.addEventListener("click", () => this.set(null));
    this.figure = element("figure", { class: "pad" }, this.canvas, element("figcaption", {}, label, " ", clear));
    this.listen();
    this.paint();
  }

  /** Whether nothing is drawn. */
  get empty() {
    return !this.ink.includes(1);
  }

  /** @param {Uint8Array | null} ink a whole drawing, or null for none */
  set(ink) {
    this.ink = ink ? ink.slice() : new Uint8Array(DRAWN * DRAWN);
    this.paint();
    this.onChange();
  }

  listen() {
    this.canvas.addEventListener("pointerdown", (event) => this.start(event));
    this.canvas.addEventListener("pointermove", (event) => this.follow(event));
    this.canvas.addEventListener("keydown", (event) => this.press(event));
    this.canvas.addEventListener("blur", () => this.lift());
  }

  /** @param {PointerEvent} event @returns {{x: number, y: number}} its position in the drawing */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * DRAWN, y: ((event.clientY - box.top) / box.height) * DRAWN };
  }

  /** @param {PointerEvent} event */
  start(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    Object.assign(this.pen, this.place(event), { down: false, shown: false });
    this.moveTo(this.pen, true);
  }

  /** @param {PointerEvent} event */
  follow(event) {
    if (!this.canvas.hasPointerCapture(event.pointerId)) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const each of passed.length ? passed : [event]) this.moveTo(this.place(each), true);
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) {
      const [dx, dy] = ARROWS[/** @type {keyof typeof ARROWS} */ (event.key)], far = event.shiftKey ? 1 : 4;
      this.pen.shown = true;
      this.moveTo({ x: this.pen.x + dx * far, y: this.pen.y + dy * far }, this.pen.down);
    } else if (event.key === " ") {
      Object.assign(this.pen, { down: !this.pen.down, shown: true });
      this.moveTo(this.pen, this.pen.down);
    } else if (event.key === "Delete" || event.key === "Backspace") this.set(null);
    else return;
    event.preventDefault(); // keeps the page from scrolling
  }

  lift() {
    Object.assign(this.pen, { down: false, shown: false });
    this.paint();
  }

  /** @param {{x: number, y: number}} to @param {boolean} drawing whether to draw the way there */
  moveTo({ x, y }, drawing) {
    const inside = (/** @type {number} */ value) => Math.min(Math.max(value, 0), DRAWN - 1);
    const from = { ...this.pen }, dots = Math.max(1, Math.ceil(Math.hypot(x - from.x, y - from.y)));
    Object.assign(this.pen, { x: inside(x), y: inside(y) });
    for (let i = 0; drawing && i <= dots; i++)
      this.dot(from.x + ((this.pen.x - from.x) * i) / dots, from.y + ((this.pen.y - from.y) * i) / dots);
    this.paint();
    if (drawing) this.onChange();
  }

  /** @param {number} x @param {number} y */
  dot(x, y) {
    for (let row = Math.ceil(y - PEN); row <= y + PEN; row++)
      for (let column = Math.ceil(x - PEN); column <= x + PEN; column++)
        if (row >= 0 && row < DRAWN && column >= 0 && column < DRAWN && Math.hypot(row - y, column - x) <= PEN)
          this.ink[row * DRAWN + column] = 1;
  }

  paint() {
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    const picture = context.createImageData(DRAWN, DRAWN);
    this.ink.forEach((bit, i) => (picture.data[4 * i + 3] = 255 * bit)); // black, or transparent
    context.putImageData(picture, 0, 0);
    if (this.pen.shown) this.paintPen(context);
    this.canvas.setAttribute("aria-label", `${this.what} of class ${this.label}, ${this.empty ? "empty" : "drawn"}`);
  }

  /** @param {CanvasRenderingContext2D} context */
  paintPen(context) {
    context.strokeStyle = this.pen.down ? "#b84a00" : "#0072b2";
    context.lineWidth = 2;
    context.beginPath();
    context.arc(this.pen.x, this.pen.y, 5, 0, 2 * Math.PI);
    context.stroke();
  }
}
