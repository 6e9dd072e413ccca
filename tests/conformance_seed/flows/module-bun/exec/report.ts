export default async function report(context: any) {
  const { config, event, name, step } = context.flow;
  console.log(`${config.greeting} from ${name}/${step}`);
  console.error("a word to stderr");
  await Bun.sleep(1);
  return {
    status: event.payload.status,
    message: event.payload.message ?? `${config.greeting} ${event.id}`,
    artifacts: { files: event.payload.files ?? 0 },
  };
}
