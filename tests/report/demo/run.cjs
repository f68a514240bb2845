// Runs an expression with the page's scripts loaded, and prints its value as JSON:
// node run.cjs FOLDER EXPRESSION [doubles]; "doubles" as in a browser without WebAssembly.
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { runInThisContext } = require("node:vm");

const [folder, expression, precision] = process.argv.slice(2);
if (precision === "doubles") globalThis.WebAssembly = undefined;
const scripts = readFileSync(join(folder, "index.html"), "utf8").matchAll(/<script src="([a-z_]+\.js)"/g);
for (const [, name] of scripts)
  if (!name.startsWith("page")) runInThisContext(readFileSync(join(folder, name), "utf8"), name);
const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
console.log(JSON.stringify(runInThisContext(`(${expression})`), plain));
