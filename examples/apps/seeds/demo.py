"""The five workflows of the demo worker (seed: convex-orchestrator, example/worker.ts) and the two of its README.

Run a worker on them: `stepwell serve --app demo:app` in this folder, then
`stepwell start greet --input '{"name": "World"}'`, or `stepwell signal RUN approved '{"approved": true}'`.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from stepwell import App, Context, Signal, Stepwell

app = App("demo")


@dataclass
class Item:
    name: str
    price: float


@dataclass
class Approved:
    approved: bool


decision = Signal("approved", Approved)


@app.workflow(name="greet")
async def greet(ctx: Context, name: str) -> dict[str, str]:
    greeting = await ctx.step("create-greeting", lambda: f"Hello, {name}!")
    timestamp = ctx.now().isoformat()
    return {"greeting": greeting, "timestamp": timestamp}


@app.workflow(name="order")
async def order(ctx: Context, user_id: str, items: list[Item], email: str) -> dict[str, str | float]:
    await ctx.step("fetch-user", fetch_user, user_id)
    total = sum(item.price for item in items)
    transaction = await ctx.step("process-payment", lambda: f"txn-{user_id}")
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.step("send-confirmation", send_mail, email, "Thank you!"), name="mail")
        group.create_task(ctx.step("generate-receipt", lambda: None), name="receipt")
    return {"orderId": f"order-{user_id}", "total": total, "transactionId": transaction}


@app.workflow(name="stress")
async def stress(ctx: Context, count: int = 100) -> dict[str, int]:
    results = [await ctx.step(f"step-{n:03}", count_to, n) for n in range(1, count + 1)]
    return {"totalSteps": len(results), "firstStep": results[0], "lastStep": results[-1], "sum": sum(results)}


@app.workflow(name="reminder")
async def reminder(ctx: Context, message: str, delay_seconds: float = 86_400) -> str:
    await ctx.step("schedule", lambda: None)
    await ctx.sleep(timedelta(seconds=delay_seconds), name="delay")
    return await ctx.step("send-reminder", lambda: f"sent: {message}")


@app.workflow(name="approval")
async def approval(ctx: Context, request_id: str, requester: str) -> dict[str, str]:
    await ctx.step("request-approval", send_mail, requester, f"Please decide on {request_id}")
    answer = await ctx.wait_for_signal(decision)
    status = await ctx.step("apply-decision", lambda: "approved" if answer.approved else "rejected")
    return {"requestId": request_id, "status": status}


def count_to(n: int) -> int:
    return n


async def fetch_user(user_id: str) -> dict[str, str]:
    """Stands for a service that takes its time."""
    await asyncio.sleep(0.03)
    return {"id": user_id}


async def send_mail(to: str, text: str) -> str:
    """Stands for a mail server."""
    return f"to {to}: {text}"


async def main() -> None:
    async with Stepwell("sqlite:///demo.sqlite", app) as sw:
        print(await (await sw.start(greet, "World")).result())
        print(await (await sw.start(order, "7", [Item("tea", 3.5), Item("cup", 6)], "ann@example.com")).result())
        print(await (await sw.start(stress)).result())
        print(await (await sw.start(reminder, "tea is ready", 0.5)).result())
        waiting = await sw.start(approval, "r-1", "ann")
        await waiting.signal(decision, Approved(True))
        print(await waiting.result())


if __name__ == "__main__":
    asyncio.run(main())
