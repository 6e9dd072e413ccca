// Announces a guest. The microphone is off at the first attempt; `[steps.retry]` brings the second.
const { flow, runtime } = JSON.parse(await Bun.stdin.text());
const attempt = Number(runtime.attemptId.split(/\D+/).at(-1));
if (attempt === 1) {
  console.error("the microphone is off");
  process.exit(1);
}
const message = `${flow.event.payload.name.toUpperCase()} is here`;
console.log(`FLOW_RESULT ${JSON.stringify({ status: "completed", message, artifacts: { attempt } })}`);
