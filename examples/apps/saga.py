"""A trip: what was booked is given back in reverse order when a step fails, nobody pays in time, or it is canceled.

Run it: `python examples/apps/saga.py`.
"""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from stepwell import App, Context, Retry, RunError, Signal, Stepwell

app = App("travel", retry=Retry(5))
paid = Signal("paid", bool)


@app.action
async def book_flight(trip: str) -> str:
    return f"F-{trip}"


@app.action
async def cancel_flight(booking: str) -> None:
    print("given back:", booking)


@app.action
async def book_hotel(trip: str) -> str:
    return f"H-{trip}"


@app.action
async def cancel_hotel(booking: str) -> None:
    print("given back:", booking)


@app.workflow
async def book(ctx: Context, trip: str) -> tuple[str, str]:
    async with AsyncExitStack() as undo:  # plain Python: runs in reverse on an error and on cancel
        flight = await ctx.call(book_flight, trip)
        undo.push_async_callback(ctx.call, cancel_flight, flight)
        hotel = await ctx.call(book_hotel, trip)
        undo.push_async_callback(ctx.call, cancel_hotel, hotel)
        await ctx.wait_for_signal(paid, timeout=timedelta(hours=1))
        await ctx.step("invoice", invoice, flight, hotel)
        undo.pop_all()  # all went well: keep everything
    return flight, hotel


async def invoice(flight: str, hotel: str) -> None:
    if flight == "F-moon":
        raise ValueError("there is no invoice for the moon")


async def main() -> None:
    async with Stepwell("sqlite:///travel.sqlite", app) as sw:
        rome, moon, mars = [await sw.start(book, trip) for trip in ("rome", "moon", "mars")]
        await rome.signal(paid, True)
        print(await rome.result())
        await moon.signal(paid, True)
        try:
            await moon.result()
        except RunError as error:  # of the step, as its type and message
            print(f"{error.type}: {error}")
        await mars.cancel("we have changed our mind")
        try:
            await mars.result()
        except RunError as error:  # RunCanceled
            print(error)


if __name__ == "__main__":
    asyncio.run(main())
