"""A trip: what was booked is given back in reverse order when something fails, or when the run is canceled.

Run it: `python examples/apps/saga.py`.
"""

import asyncio
from contextlib import AsyncExitStack

from stepwell import App, Context, Retry, RunError, Stepwell

app = App("travel", retry=Retry(5))
given_back: list[str] = []


@app.action
async def book_flight(trip: str) -> str:
    return f"F-{trip}"


@app.action
async def cancel_flight(booking: str) -> None:
    given_back.append(booking)


@app.action
async def book_hotel(trip: str) -> str:
    return f"H-{trip}"


@app.action
async def cancel_hotel(booking: str) -> None:
    given_back.append(booking)


@app.workflow
async def book(ctx: Context, trip: str) -> tuple[str, str]:
    async with AsyncExitStack() as undo:  # plain Python: runs in reverse on an error and on cancel
        flight = await ctx.call(book_flight, trip)
        undo.push_async_callback(ctx.call, cancel_flight, flight)
        hotel = await ctx.call(book_hotel, trip)
        undo.push_async_callback(ctx.call, cancel_hotel, hotel)
        await ctx.step("invoice", invoice, flight, hotel)
        undo.pop_all()  # all went well: keep everything
    return flight, hotel


async def invoice(flight: str, hotel: str) -> None:
    if flight == "F-moon":
        raise ValueError("there is no invoice for the moon")


async def main() -> None:
    async with Stepwell("sqlite:///travel.sqlite", app) as sw:
        print(await (await sw.start(book, "rome")).result())
        try:
            await (await sw.start(book, "moon")).result()
        except RunError as error:
            print(f"{error.type}: {error}; given back: {given_back}")


if __name__ == "__main__":
    asyncio.run(main())
