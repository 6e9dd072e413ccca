"""The body that plays a program.

What it sees goes into its log, which is its trace: (task, time, operation, result). Two lives of one run must see the
same. All operations of `programs` are methods here: `on_` and the name.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any

from stepwell.functions.define import Event, Retry, Signal, State, Workflow
from stepwell.functions.errors import HistoryMismatch, NondeterministicCall, StepError
from stepwell.model.errors import StepwellError
from stepwell.workflow.context import Context
from tests.workflow.called import HUGE, Price, act, broken, effect, fail, flaky, huge, look, plain, price, text, told
from tests.workflow.programs import Node


class Player:
    """Plays one program in one run; `root` is the run that outside callers know."""

    def __init__(self, ctx: Context, root: str) -> None:
        self.ctx, self.root = ctx, root
        trace: Any = ctx.log
        self.note: Callable[[str, str], None] = trace.note

    async def run(self, node: Node) -> Any:
        """Plays a program and notes how it ended."""
        op = node[0]
        try:
            result = await getattr(self, f"on_{op}")(*node[1:])
        except asyncio.CancelledError:
            self.note(op, "canceled")
            raise
        except Exception as error:
            self.note(op, told(error))
            raise
        self.note(op, repr(result))
        return result

    async def safe(self, node: Node) -> Any:
        """The same, with failures as results."""
        try:
            return await self.run(node)
        except (NondeterministicCall, HistoryMismatch):
            raise
        except (StepwellError, TimeoutError, ExceptionGroup) as error:
            return told(error)

    def task(self, node: Node, name: str | None = None) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.safe(node), name=name)

    async def mark(self, name: str) -> Any:
        """A step that is not in the program; it may fail, too."""
        return await self.safe(["step", name])

    # ── leaves ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def on_step(self, name: str) -> Any:
        return await self.ctx.step(name, text)

    async def on_typed(self, name: str) -> Any:
        result = await self.ctx.step(name, price)
        assert type(result) is Price
        assert type(result.tags) is tuple
        return result

    async def on_plain(self, name: str) -> Any:
        return await self.ctx.step(name, plain)

    async def on_fail(self, name: str) -> Any:
        return await self.ctx.step(name, fail)

    async def on_flaky(self, name: str, attempts: int) -> Any:
        return await self.ctx.options(retry=Retry(attempts)).step(name, flaky)

    async def on_late(self, name: str, seconds: float) -> Any:
        return await self.ctx.options(deadline=seconds, retry=Retry(3)).step(name, flaky)

    async def on_delayed(self, name: str, seconds: float) -> Any:
        return await self.ctx.options(delay=seconds).step(name, text)

    async def on_query(self) -> Any:
        return await self.ctx.call(look)

    async def on_action(self) -> Any:
        return await self.ctx.call(act, "one")

    async def on_flaky_action(self, attempts: int) -> Any:
        return await self.ctx.options(retry=Retry(attempts), name="flaky").call(act, "more")

    async def on_late_action(self, seconds: float) -> Any:
        return await self.ctx.options(deadline=seconds).call(act, "late")

    async def on_mutation(self) -> Any:
        return await self.ctx.call(effect, str(self.ctx.uuid()))

    async def on_bad_mutation(self) -> Any:
        return await self.ctx.call(broken, str(self.ctx.uuid()))

    async def on_sleep(self, seconds: float) -> None:
        await self.ctx.sleep(seconds)

    async def on_pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def on_until(self, seconds: float) -> None:
        await self.ctx.sleep_until(self.ctx.now() + timedelta(seconds=seconds))

    async def on_signal(self, name: str) -> Any:
        return await self.ctx.wait_for_signal(name)

    async def on_signal_within(self, name: str, seconds: float) -> Any:
        return await self.ctx.wait_for_signal(name, timeout=seconds)

    async def on_huge(self, what: str) -> Any:
        """Something that is too large fails alone, and is caught like any failure."""
        ctx = self.ctx
        calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "step": lambda: ctx.step("huge", huge),
            "action": lambda: ctx.call(act, HUGE),
            "mutation": lambda: ctx.call(effect, HUGE),
            "set": lambda: ctx.set(State("huge", str), HUGE),
            "tell": lambda: ctx.handle(self.root).signal("go", HUGE),
            "child": lambda: ctx.call(play, ["step", HUGE], self.root),
            "dispatch": lambda: ctx.dispatch(Event("played", HUGE)),
        }
        try:
            return await calls[what]()
        except StepError as error:
            return [error.type, error.attempts]

    async def on_wide(self, nodes: list[Node]) -> Any:
        many = await asyncio.gather(*(self.ctx.step("wide", text) for _ in range(1_100)))
        return [len(many), [await self.safe(node) for node in nodes]]

    async def on_stream(self, name: str) -> Any:
        found: list[Any] = []
        async for value in self.ctx.signals(Signal(name, str)):
            found.append(value)
            if len(found) == 2:
                break
        return found

    async def on_tell(self, whom: str, name: str) -> None:
        known = {"root": self.root, "self": self.ctx.run_id}
        await self.ctx.handle(known.get(whom, whom)).signal(name, whom)

    async def on_set(self, name: str) -> None:
        await self.ctx.set(State(name, str), self.ctx.now().isoformat())

    async def on_patched(self, change: str) -> Any:
        return await self.mark("new") if self.ctx.patched(change) else await self.mark("old")

    async def on_chance(self) -> Any:
        return [self.ctx.random.random(), str(self.ctx.uuid()), self.ctx.now().isoformat()]

    async def on_dispatch(self, event_id: str | None) -> Any:
        payload = {"n": self.ctx.random.randrange(2)}
        sent = await self.ctx.dispatch(Event("played", payload, id=event_id and f"{self.root}-{event_id}"))
        return [sent.event_id, sent.duplicate, sent.run_ids]

    # ── around one program ───────────────────────────────────────────────────────────────────────────────────────

    async def on_patch(self, node: Node) -> Any:
        if self.ctx.patched("a change"):
            await self.mark("inserted")
        return await self.run(node)

    async def on_timeout(self, node: Node, seconds: float) -> Any:
        async with asyncio.timeout(seconds):
            return await self.run(node)

    async def on_timeout_at(self, node: Node, seconds: float) -> Any:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + seconds):
            return await self.run(node)

    async def on_wait_for(self, node: Node, seconds: float) -> Any:
        return await asyncio.wait_for(self.run(node), seconds)

    async def on_moved_timeout(self, node: Node, seconds: float, later: float | None) -> Any:
        """A limit that is moved on the way."""
        async with asyncio.timeout(seconds) as limit:
            await self.mark("moved")
            limit.reschedule(None if later is None else asyncio.get_running_loop().time() + later)
            return await self.run(node)

    async def on_stubborn(self, node: Node, seconds: float) -> Any:
        """Goes on when it is canceled, once."""
        try:
            async with asyncio.timeout(seconds):
                return await self.run(node)
        except asyncio.CancelledError:
            self.note("stubborn", "goes on")
            return await self.mark("after all")

    async def on_shield(self, node: Node, seconds: float) -> Any:
        task = self.task(node)
        try:
            return await asyncio.wait_for(asyncio.shield(task), seconds)
        except TimeoutError:
            return ["shielded", await task]

    async def on_cleanup(self, node: Node, seconds: float) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await self.run(node)
        finally:
            await self.mark("cleanup")
            self.note("cleanup", "done")

    async def on_cancel(self, node: Node, seconds: float) -> Any:
        task = self.task(node)
        await asyncio.sleep(seconds)
        task.cancel()
        return await self._end_of(task)

    async def _end_of(self, task: "asyncio.Task[Any]") -> Any:
        """The end of a task that was canceled; whoever is canceled meanwhile goes on to be."""
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return "canceled"

    async def on_child(self, node: Node) -> Any:
        return await self.ctx.call(play, node, self.root)

    async def on_start(self, node: Node, how: str) -> Any:
        options = self.ctx.options(detached=True) if how == "detached" else self.ctx
        handle = await options.start(play, node, self.root)
        if how == "cancel":
            await handle.cancel("not wanted")
        if how == "give_up":
            task = asyncio.create_task(handle.result())
            await self.mark("meanwhile")
            task.cancel()
            return await self._end_of(task)
        return await handle.result() if how in ("result", "cancel") else handle.id

    # ── around several ───────────────────────────────────────────────────────────────────────────────────────────

    async def on_seq(self, nodes: list[Node]) -> Any:
        return [await self.safe(node) for node in nodes]

    async def on_gather(self, nodes: list[Node]) -> Any:
        return await asyncio.gather(*(self.run(node) for node in nodes))

    async def on_gather_all(self, nodes: list[Node]) -> Any:
        ends = await asyncio.gather(*(self.run(node) for node in nodes), return_exceptions=True)
        return [told(end) if isinstance(end, BaseException) else end for end in ends]

    async def on_group(self, nodes: list[Node]) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.run(node)) for node in nodes]
        return [task.result() for task in tasks]

    async def on_named(self, nodes: list[Node]) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.safe(node), name=f"part/{at % 2}") for at, node in enumerate(nodes)]
        return [task.result() for task in tasks]

    async def on_race(self, nodes: list[Node]) -> Any:
        done, rest = await asyncio.wait([self.task(node) for node in nodes], return_when=asyncio.FIRST_COMPLETED)
        results = []
        for task in done:
            results.append(task.result())
            await self.mark("won")
        for task in rest:
            task.cancel()
        return [*results, *[await self._end_of(task) for task in rest]]

    async def on_first_error(self, nodes: list[Node]) -> Any:
        tasks = [asyncio.create_task(self.run(node)) for node in nodes]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in rest:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        return [len(done), [told(end) if isinstance(end, BaseException) else end for end in ends]]

    async def on_one_by_one(self, nodes: list[Node]) -> Any:
        """Goes through sets of tasks as they come."""
        tasks = {self.task(node) for node in nodes} | {asyncio.create_task(self.mark(f"in set {n}")) for n in range(5)}
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=2)
            for task in done:
                self.note("of set", repr(task.result()))
                await self.mark("each")
            if not done:
                break
        for task in tasks:
            task.cancel()
        return len(tasks)

    async def on_promises(self, nodes: list[Node]) -> Any:
        """Goes through sets of futures, of its own and of gather."""
        loop = asyncio.get_running_loop()
        kept: list[asyncio.Future[Any]] = [loop.create_future() for _ in nodes]

        async def keep(future: "asyncio.Future[Any]", node: Node) -> None:
            future.set_result(await self.safe(node))

        pairs = [
            asyncio.gather(keep(future, node), self.mark("kept")) for future, node in zip(kept, nodes, strict=True)
        ]
        waiting: set[asyncio.Future[Any]] = {*kept, *pairs}
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                self.note("of set", repr(future.result()))
                await self.mark("each")
        return len(pairs)

    async def on_as_done(self, nodes: list[Node]) -> Any:
        return await self._as_done([self.task(node) for node in nodes])

    async def on_as_done_raw(self, nodes: list[Node]) -> Any:
        return await self._as_done([self.safe(node) for node in nodes])

    async def _as_done(self, waits: list[Any]) -> Any:
        results = []
        for future in asyncio.as_completed(waits):
            results.append(await future)
            await self.mark("next")
        return results

    async def on_queue(self, nodes: list[Node]) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue(1)
        results: list[Any] = []

        async def produce(node: Node) -> None:
            await queue.put(await self.safe(node))

        async def consume(number: int) -> None:
            while True:
                results.append([number, await queue.get()])
                await self.mark("consumed")
                queue.task_done()

        consumers = [asyncio.create_task(consume(number)) for number in range(2)]
        try:
            await asyncio.gather(*(produce(node) for node in nodes))
            await queue.join()
        finally:
            for consumer in consumers:
                consumer.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        return results

    async def on_locks(self, nodes: list[Node]) -> Any:
        two, one = asyncio.Semaphore(2), asyncio.Lock()

        async def guarded(node: Node) -> Any:
            async with two, one:
                return await self.safe(node)

        return await asyncio.gather(*(guarded(node) for node in nodes))

    async def on_condition(self, nodes: list[Node]) -> Any:
        ready, condition = [], asyncio.Condition()

        async def produce(node: Node) -> None:
            result = await self.safe(node)
            async with condition:
                ready.append(result)
                condition.notify()

        async def consume() -> Any:
            async with condition:
                await condition.wait_for(lambda: ready)
                return ready.pop(0)

        return (await asyncio.gather(*(consume() for _ in nodes), *(produce(node) for node in nodes)))[: len(nodes)]

    async def on_barrier(self, nodes: list[Node]) -> Any:
        barrier = asyncio.Barrier(len(nodes))

        async def meet(node: Node) -> Any:
            result = await self.safe(node)
            return [await barrier.wait(), result]

        return await asyncio.gather(*(meet(node) for node in nodes))

    async def on_event(self, nodes: list[Node]) -> Any:
        event = asyncio.Event()

        async def after(node: Node) -> Any:
            await event.wait()
            return await self.safe(node)

        tasks = [asyncio.create_task(after(node)) for node in nodes]
        await self.mark("set")
        event.set()
        return await asyncio.gather(*tasks)

    async def on_generator(self, nodes: list[Node]) -> Any:
        return [result async for result in self._results(nodes)]

    async def on_abandoned(self, nodes: list[Node]) -> Any:
        """Leaves a generator where it stands."""
        async for result in self._results(nodes):
            return result
        return None

    async def _results(self, nodes: list[Node]) -> AsyncIterator[Any]:
        try:
            for node in nodes:
                yield await self.safe(node)
        finally:
            await self.mark("closed")


async def _play(ctx: Context, program: Node, root: str) -> str:
    return str(await Player(ctx, root).safe(program))


play: Workflow[..., str] = Workflow("replay", _play, {"name": "replay:play"})
