"""A server with options that the command line does not offer: `child.py CWD SLOTS OPTIONS`, the last as JSON."""

import asyncio
import json
import os
import sys
from pathlib import Path

from stepwell.model.settings import settings_from
from stepwell.server.options import ServerOptions
from stepwell.server.serve import listen, serve
from stepwell.worker.local import open_local
from tests.support import durable_url


async def main(cwd: Path, slots: int, options: ServerOptions) -> None:
    url = durable_url(cwd / ".stepwell/stepwell.sqlite")
    listener = listen("127.0.0.1", 0, secured=options.secured)
    async with open_local(url, cwd, settings=settings_from(os.environ), slots=slots) as local:
        await serve(
            local, listener, options=options, on_listening=lambda url: print(f"listening on {url} x", flush=True)
        )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), ServerOptions(**json.loads(sys.argv[3]))))
