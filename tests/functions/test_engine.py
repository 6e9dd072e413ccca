"""Mutations in a real engine: on the lane's thread, beside everything else."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from stepwell.engine.engine import Engine
from stepwell.functions.contexts import MutationContext
from stepwell.functions.mutations import AppMutations
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.settings import Settings
from tests.functions.shop import Shop, put_tables
from tests.support import STORES, open_store


@pytest.mark.parametrize("name", sorted(STORES))
def test_a_mutation_that_calls_the_engine_fails_and_its_call_is_refused(tmp_path: Path, shop: Shop, name: str) -> None:
    put_tables(tmp_path / "m")
    settings = Settings(mutation_limit_ms=1_000)
    hook = AppMutations(shop.registry, migrations=tmp_path / "m", settings=settings)
    told: list[BaseException | None] = []

    async def scenario() -> None:
        engine = Engine(open_store(name, tmp_path), settings=settings, mutations=hook, prepare=hook.migrate)
        async with engine:
            loop, failed_first, over = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

            async def start() -> None:
                await failed_first.wait()  # so the mutation waits, however the threads take turns
                try:
                    await engine.submit(c.StartRun("never", "wf"))
                except errors.Nested as error:
                    told.append(error)
                over.set()

            def body(ctx: MutationContext) -> None:
                asyncio.run_coroutine_threadsafe(start(), loop).result()

            path = shop.bad(body)
            with pytest.raises(errors.MutationFailed) as failed:
                await engine.submit(c.Invoke(path))
            assert msgspec.json.decode(failed.value.fields["failure"])["type"] == "NotAllowed"
            failed_first.set()
            await over.wait()
            assert len(told) == 1
            invoked = await engine.submit(c.Invoke("shop:pay", '{"order_id":"a"}'))
            assert invoked.result == "1"
            assert await engine.read(lambda reader: reader.run("main", "never")) is None
            rows = await engine.read(lambda reader: reader.app.execute("select order_id from receipt", (), 9).rows)
            assert rows == [("a",)]

    asyncio.run(scenario())
    hook.close()
