// Runs a WebAssembly program in Node: its path, and its arguments, of which
// those that name files are absolute.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [file, ...options] = process.argv.slice(2);
const wasi = new WASI({
  version: "preview1",
  args: [file, ...options],
  env: process.env,
  preopens: { "/": "/" },
  returnOnExit: true,
});
const program = await WebAssembly.compile(await readFile(file));
const instance = await WebAssembly.instantiate(program, wasi.getImportObject());
process.exitCode = wasi.start(instance);
