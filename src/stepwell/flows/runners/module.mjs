// Calls the handler that a module exports, under Bun or Node (source: spec codex-flows 3.1, module mode).
//
// Context in on stdin, FLOW_RESULT out as the last line. What is thrown is a result with status `failed` and exit 0,
// as in the seed. Usage: bun module.mjs SCRIPT, node module.mjs SCRIPT
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const MAX_MESSAGE_CHARS = 10_000;
const script = process.argv[2];
process.argv.splice(1, 1); // the script sees the arguments that it would see without us

const context = JSON.parse(await readAll(process.stdin));
if (globalThis.Bun) provideRuntime();
await say(`\nFLOW_RESULT ${await answer()}\n`);
process.exit(); // what still runs beside the handler neither keeps the step alive nor speaks after it

async function answer() {
  try {
    const { default: handler } = await import(pathToFileURL(script).href);
    if (typeof handler !== "function") throw new Error("module flow step must export a default handler function");
    const result = await handler(context);
    if (typeof result !== "object" || typeof result?.status !== "string") {
      throw new Error("module flow step must return a FlowResult object");
    }
    return JSON.stringify(result);
  } catch (error) {
    return JSON.stringify({ status: "failed", message: told(error) });
  }
}

// Anything can be thrown, also what cannot be made a text.
function told(error) {
  try {
    console.error(error);
    return String(error?.message ?? error).slice(0, MAX_MESSAGE_CHARS);
  } catch {
    return "the handler threw something that cannot be shown";
  }
}

async function readAll(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts).toString("utf8");
}

function say(text) {
  // The stream, and not the file descriptor: it keeps the order of what the handler has printed.
  return new Promise((resolve) => process.stdout.write(text, resolve));
}

// Flows of the seed import a helper package. Where it is not installed, this is what they use of it.
function provideRuntime() {
  const exports = {
    defineBunFlow: (handler) => handler,
    readFlowContext: (text) => (text === undefined ? context : JSON.parse(text)),
  };
  const missing = ["@peezy.tech/flow-runtime", "@peezy.tech/codex-flows/flow-runtime"].filter((name) => !isInstalled(name));
  Bun.plugin({
    name: "flow-runtime",
    setup: (build) => missing.forEach((name) => build.module(name, () => ({ exports, loader: "object" }))),
  });
}

// Not Bun.resolveSync, since that asks the registry for what it does not find.
function isInstalled(name) {
  const owner = name.split("/").slice(0, 2).join("/");
  for (let at = dirname(script); ; at = dirname(at)) {
    if (existsSync(join(at, "node_modules", owner)) || isNamed(join(at, "package.json"), owner)) return true;
    if (at === dirname(at)) return false;
  }
}

function isNamed(file, owner) {
  try {
    return JSON.parse(readFileSync(file, "utf8")).name === owner;
  } catch {
    return false;
  }
}
