"""Control requests to a pretended daemon: by a call, or through a socket served from a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.control.handlers import Handlers
from node.control.server import ControlServer
from node.state import StateFolder
from tests.support.daemon import FakeDaemon


def ask(daemon: FakeDaemon, method: str, **params: object) -> object:
    """The result of one request, by handlers that know of no other."""

    async def main() -> object:
        daemon.handlers = handlers = Handlers(daemon)
        return await handlers.dispatch(method, params)

    return asyncio.run(main())


@contextmanager
def served(state: Path) -> Iterator[FakeDaemon]:
    """A daemon that answers on `state`/control.sock inside the `with` block."""
    daemon = FakeDaemon()
    daemon.folder = StateFolder(state)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> ControlServer:
        daemon.handlers = handlers = Handlers(daemon)
        server = ControlServer(state / "control.sock", handlers.dispatch)
        await server.start()
        return server

    try:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result(5)
        try:
            yield daemon
        finally:
            asyncio.run_coroutine_threadsafe(server.close(), loop).result(5)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
