// Writes a greeted guest into the guest book, once: the run's id is the same for every attempt.
import { appendFileSync, existsSync, readFileSync } from "node:fs";

const { flow, runtime } = JSON.parse(readFileSync(0, "utf8"));
const book = process.env.GUEST_BOOK;
if (!book) {
  console.log(`FLOW_RESULT ${JSON.stringify({ status: "skipped", message: "GUEST_BOOK names no file" })}`);
} else {
  const there = existsSync(book) && readFileSync(book, "utf8").includes(`(${runtime.runId})`);
  if (!there) appendFileSync(book, `${flow.event.payload.text} (${runtime.runId})\n`);
  console.log(`FLOW_RESULT ${JSON.stringify({ status: there ? "skipped" : "changed", message: book })}`);
}
