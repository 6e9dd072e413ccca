import { defineBunFlow } from "@peezy.tech/codex-flows/flow-runtime";

export default defineBunFlow(({ flow }: any) => {
  console.log(`${flow.config.greeting} from ${flow.name}/${flow.step}`);
  console.error("a word to stderr");
  return {
    status: flow.event.payload.status,
    message: `${flow.config.greeting} ${flow.event.id}`,
    artifacts: { files: flow.event.payload.files ?? 0 },
  };
});
