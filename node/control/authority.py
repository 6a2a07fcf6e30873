"""The authority's key through the control socket.

    authority.unlock    passphrase     sign with it from now on
    authority.protect   old?, new?     another passphrase, or none; the key stays in use

A passphrase is stretched in a thread: packets flow meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from node import authority_keys
from node.control.params import Params, text
from node.control.ports import DaemonPort
from overlay.effects import Report


class Authority:
    """These methods.

    Args:
        daemon: what they act on.

    Attributes:
        methods: by name.
    """

    def __init__(self, daemon: DaemonPort) -> None:
        self._daemon = daemon
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "authority.unlock": self._unlock,
            "authority.protect": self._protect,
        }

    async def _unlock(self, params: Params) -> object:
        daemon, passphrase = self._daemon, text(params, "passphrase")
        authority_keys.check_here(daemon.folder)
        keys = await asyncio.to_thread(authority_keys.read_keys, daemon.folder, passphrase)
        notices = daemon.engine.snapshot(daemon.now()).notices
        was_locked = any(notice.code == "authority-locked" for notice in notices)
        if was_locked:
            for key in keys:
                await daemon.stored(daemon.engine.hold_authority_key(key, daemon.now()))
            daemon.perform([Report("authority.unlocked", {})])
        return {"was_locked": was_locked}

    async def _protect(self, params: Params) -> object:
        old, new = (text(params, key, "") or None for key in ("old", "new"))
        await asyncio.to_thread(authority_keys.protect, self._daemon.folder, old, new)
        return {"protected": new is not None}
