"""Authorities and their keys through the control socket.

    authority.list                           every authority there was
    authority.install   key?, passphrase?    trust another one; without `key`, a new one made here
    authority.use       key                  have it sign new certificates
    authority.remove    key, force?          trust it no more, for ever
    authority.unlock    passphrase           sign with the keys that are here from now on
    authority.protect   old?, new?           another passphrase, or none; the keys stay in use

A key is named by its public half in hex digits, or by as many of the first as no other one has; one
that is not in the list yet in full. A private key is stored before anybody hears of it. A
passphrase is stretched in a thread: packets flow meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Container

from node import authority_keys
from node.control.params import Params, flag, text
from node.control.ports import DaemonPort
from node.control.present import Json, moment
from node.control.schema import ControlError
from node.errors import NodeError
from overlay.catalog.trust import Standing
from overlay.effects import Report
from overlay.errors import RefusedError
from overlay.keys import KEY_SIZE, SigningKey
from overlay.views import AuthorityView
from overlay.wire.cluster import fingerprint_of


class Authority:
    """These methods.

    Args:
        daemon: what they act on.

    Attributes:
        methods: by name.
    """

    def __init__(self, daemon: DaemonPort) -> None:
        self._daemon = daemon
        # Who changes the file reads it first: one at a time, or one writes over what another wrote.
        self._changing = asyncio.Lock()
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "authority.list": self._list,
            "authority.install": self._install,
            "authority.use": self._use,
            "authority.remove": self._remove,
            "authority.unlock": self._unlock,
            "authority.protect": self._protect,
        }

    async def _list(self, _: Params) -> object:
        return [present_authority(one) for one in self._daemon.engine.authorities()]

    async def _install(self, params: Params) -> object:
        daemon, given = self._daemon, text(params, "key", "")
        if given:
            key = _public(given)
            await daemon.stored(daemon.engine.install_authority(key, daemon.now()))
            return {"key": key.hex(), "made": False, "installed": True}
        gone = {one.key for one in daemon.engine.authorities() if one.standing == Standing.REMOVED}
        async with self._changing:
            words = text(params, "passphrase", "") or None
            made = await asyncio.to_thread(self._make, gone, words)
        await daemon.stored(daemon.engine.hold_authority_key(made, daemon.now()))
        installed = True
        try:
            await daemon.stored(daemon.engine.install_authority(made.public, daemon.now()))
        except RefusedError as refused:
            if refused.code != "not-authority":
                raise
            installed = False  # an authority elsewhere has to
        return {"key": made.public.hex(), "made": True, "installed": installed}

    def _make(self, gone: Container[bytes], passphrase: str | None) -> SigningKey:
        """Store one key more, in place of those that are `gone`: they never sign again."""
        folder = self._daemon.folder
        keys = authority_keys.read_keys(folder, passphrase)
        if any(key.is_locked for key in keys):
            why, fix = "the keys here have a passphrase", "say it with --passphrase-file"
            raise NodeError(why, fix, "authority-locked")
        if keys and passphrase is not None and not authority_keys.check_here(folder):
            # Whoever says one believes that the new key will be under it.
            why, fix = "the keys here have no passphrase", "set it with muslin authority protect"
            raise NodeError(why, fix, "not-protected")
        made = SigningKey(os.urandom(KEY_SIZE))
        kept = [key for key in keys if key.public not in gone]
        authority_keys.write_keys(folder, [*kept, made], passphrase)
        return made

    async def _use(self, params: Params) -> object:
        daemon, key = self._daemon, self._known(params)
        await daemon.stored(daemon.engine.use_authority(key, daemon.now()))
        return {"key": key.hex()}

    async def _remove(self, params: Params) -> object:
        daemon, key, force = self._daemon, self._known(params), flag(params, "force")
        await daemon.stored(daemon.engine.remove_authority(key, daemon.now(), force=force))
        return {"key": key.hex()}

    def _known(self, params: Params) -> bytes:
        given = text(params, "key").lower()
        authorities = self._daemon.engine.authorities()
        found = [one.key for one in authorities if one.key.hex().startswith(given)]
        if not found:
            why, fix = f"no authority {given[:64]!r} is known", "see muslin authority list"
            raise ControlError("no-such-authority", why, fix)
        if len(found) > 1:
            why = f"{len(found)} authorities have a key that begins with {given}"
            raise ControlError("authority-ambiguous", why, "give more of the key")
        return found[0]

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
        async with self._changing:
            await asyncio.to_thread(authority_keys.protect, self._daemon.folder, old, new)
        return {"protected": new is not None}


def present_authority(one: AuthorityView) -> Json:
    """A row of `authority list`."""
    return {
        "key": one.key.hex(),
        "fingerprint": fingerprint_of(one.key).hex(),
        "state": one.standing,
        "here": one.held,
        "members": list(one.members),
        "since": moment(one.since),
    }


def _public(given: str) -> bytes:
    try:
        return bytes.fromhex(given)
    except ValueError as error:
        raise ControlError("bad-request", "a public key is 64 hex digits") from error
