const report = async ({ flow }: any) => {
  process.stdout.write(`${flow.config.greeting} from ${flow.name}/${flow.step}\n`);
  console.error("a word to stderr");
  return {
    status: flow.event.payload.status,
    message: `${flow.config.greeting} ${flow.event.id}`,
    artifacts: { files: flow.event.payload.files ?? 0 },
  };
};

export { report as default };
