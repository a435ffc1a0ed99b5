// Drives firmware as the runner of MLPerf Tiny does, over the serial port of an emulated board.
// Arguments: a file with the bytes of an input, the results that it must give, and the command
// that runs the firmware with its serial port on standard input and output.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";

const [file, results, program, ...rest] = process.argv.slice(2);
const LIMIT_MS = 60_000;
// What the runner sends at once.
const PART = 31;

const board = spawn(program, rest, { stdio: ["pipe", "pipe", "inherit"] });
let text = "";
let heard = () => {};
board.stdout.on("data", (bytes) => {
  text += bytes;
  heard();
});
process.on("exit", () => board.kill("SIGKILL"));
setTimeout(() => fail("nothing more was heard"), LIMIT_MS).unref();

function fail(problem) {
  console.error(`${problem}; the board said: ${JSON.stringify(text)}`);
  process.exit(1);
}

// The lines up to the next that says that the board is ready.
async function answer() {
  const ready = "m-ready\r\n";
  while (!text.includes(ready)) await new Promise((resolve) => (heard = resolve));
  const end = text.indexOf(ready);
  const lines = text.slice(0, end).split("\r\n").slice(0, -1);
  text = text.slice(end + ready.length);
  return lines;
}
function send(command) {
  board.stdin.write(`${command}%`);
  return answer();
}
function expect(lines, ...patterns) {
  patterns.forEach((pattern, index) => {
    if (!pattern.test(lines[index] ?? "")) fail(`${JSON.stringify(lines)} is not ${patterns}`);
  });
  if (lines.length !== patterns.length) fail(`${JSON.stringify(lines)} is not ${patterns}`);
}

expect(await answer(), /^m-init-done$/);
expect(await send("name"), /^m-name-dut-\[.+\]$/);
expect(await send("profile"), /^m-profile-\[.+\]$/, /^m-model-\[.+\]$/);
const bytes = readFileSync(file);
expect(await send(`db load ${bytes.length}`), new RegExp(`^m-\\[Expecting ${bytes.length} bytes\\]$`));
for (let at = 0; at < bytes.length; at += PART) {
  const part = bytes.subarray(at, at + PART);
  const done = at + PART >= bytes.length ? [/^m-load-done$/] : [];
  expect(await send(`db ${part.toString("hex")}`), ...done);
}
const lines = await send("infer 2 1");
expect(
  lines,
  /^m-warmup-start-1$/, /^m-warmup-done$/, /^m-infer-start-2$/,
  /^m-lap-us-\d+$/, /^m-lap-us-\d+$/, /^m-infer-done$/,
  /^m-results-\[.+\]$/,
);
const [began, ended] = [lines[3], lines[4]].map((line) => Number(line.split("-").at(-1)));
if (lines.at(-1) !== `m-results-[${results}]`) fail(`${lines.at(-1)} is not ${results}`);
console.log(`${(ended - began) / 2} µs an inference; ${lines.at(-1)}`);
process.exit(0);
