import { readFileSync } from "node:fs";

const { flow } = JSON.parse(readFileSync(0, "utf8"));
console.log(`${flow.config.greeting} from ${flow.name}/${flow.step}`);
console.error("a word to stderr");
const { status, files = 0 } = flow.event.payload;
const message = `${flow.config.greeting} ${flow.event.id}`;
console.log("FLOW_RESULT " + JSON.stringify({ status, message, artifacts: { files } }));
