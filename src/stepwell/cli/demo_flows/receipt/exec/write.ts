const { flow } = (await Bun.stdin.json()) as { flow: { event: { payload: { orderId: string; total: number } } } };
const { orderId, total } = flow.event.payload;
console.log(`receipt of ${orderId}: ${total.toFixed(2)}`);
console.log(`FLOW_RESULT ${JSON.stringify({ status: "completed", artifacts: { lines: 1 } })}`);
