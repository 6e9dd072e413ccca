type Context = {
  flow: {
    name: string;
    version: number;
    root: string;
    step: string;
    config?: { greeting?: string };
    event: { id: string; type: string; receivedAt: string; payload: { status: string; message?: string; files?: number } };
  };
};

const context: Context = JSON.parse(await new Response(Bun.stdin.stream()).text());
const { payload } = context.flow.event;

console.log(`${context.flow.config?.greeting} from ${context.flow.name}/${context.flow.step}`);
console.error("a word to stderr");
console.log(
  `FLOW_RESULT ${JSON.stringify({
    status: payload.status,
    message: payload.message ?? `${context.flow.config?.greeting} ${context.flow.event.id}`,
    artifacts: { files: payload.files ?? 0 },
  })}`,
);
