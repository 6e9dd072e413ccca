// Keep the greeting of the config as default; a module would write `export default defineBunFlow(...)` here.
const { flow } = JSON.parse(await Bun.stdin.text());
const usual = "nothing is exported as default";

if (usual) console.log(`${flow.config.greeting} from ${flow.name}/${flow.step}`);
console.error("a word to stderr");
const result = {
  status: flow.event.payload.status,
  message: `${flow.config.greeting} ${flow.event.id}`,
  artifacts: { files: flow.event.payload.files ?? 0 },
};
console.log("FLOW_RESULT " + JSON.stringify(result));
