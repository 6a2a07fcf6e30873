"""Addresses through the control socket: held for owners, and checked.

    address.reserve   owner, ip?, ip6?          hold an address (`overlay.tenants`)
    address.release   owner, address            end that
    ipam.check        fix?                      what of addresses and blocks is wrong

Refusals are those of `node.control.pods`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from node.control.growth import patiently
from node.control.params import Params, address, flag, text
from node.control.ports import DaemonPort
from node.control.present import present_finding, present_reservation, present_stray
from node.control.schema import ControlError
from node.control.turns import Turns
from node.errors import NodeError
from overlay.types import Address


def wanted_address(daemon: DaemonPort, params: Params) -> Address | None:
    """The address that a request asks for, by `ip` or `ip6`; None if it leaves the choice.

    Raises:
        ControlError: `bad-request`, or `address-pair` if both are given and are not one pod's.
            Nothing else.
    """
    four, six = address(params, "ip"), address(params, "ip6")
    if four is not None and six is not None and not daemon.engine.is_pair(four, six):
        why = f"{four} and {six} are not addresses of one pod"
        raise ControlError("address-pair", why, "ask for one of them, the other comes with it")
    return six if four is None else four


class Addresses:
    """These methods.

    Args:
        daemon: what they act on.
        turns: taken by whoever changes pods, see `node.control.turns`.

    Attributes:
        methods: by name.
    """

    def __init__(self, daemon: DaemonPort, turns: Turns) -> None:
        self._daemon = daemon
        self._turns = turns
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "address.reserve": self._reserve,
            "address.release": self._release,
            "ipam.check": self._ipam_check,
        }

    async def _reserve(self, params: Params) -> object:
        owner, wanted = text(params, "owner"), wanted_address(self._daemon, params)
        return await patiently(self._daemon, lambda: self._hold(owner, wanted))

    async def _hold(self, owner: str, wanted: Address | None) -> dict[str, object]:
        daemon = self._daemon
        async with self._turns.sharing(object()):
            held, effects = daemon.engine.reserve(owner, wanted, daemon.now())
            try:
                await daemon.stored(effects)
            except (NodeError, asyncio.CancelledError):
                _, effects = daemon.engine.release_reserved(owner, held.address, daemon.now())
                await daemon.stored(effects)
                raise
            return present_reservation(held)

    async def _release(self, params: Params) -> object:
        owner, given = text(params, "owner"), address(params, "address")
        if given is None:
            raise ControlError("bad-request", "address must be text")
        async with self._turns.sharing(object()):
            released, effects = self._daemon.engine.release_reserved(
                owner, given, self._daemon.now()
            )
            if released:
                await self._daemon.stored(effects)
        return {"released": released}

    async def _ipam_check(self, params: Params) -> object:
        daemon, fix = self._daemon, flag(params, "fix")
        async with self._turns.alone():
            present, strays = await daemon.present_pods(), await daemon.stray_links()
            findings = daemon.engine.audit(present, daemon.now())
            lost = [finding.pod for finding in findings if finding.pod]
            if fix and lost:
                for pod in lost:
                    await daemon.detach_pod(pod)
                await daemon.stored(daemon.engine.release_lost(present, daemon.now()))
            reserved = [present_reservation(held) for held in daemon.engine.reserved()]
        shown = [present_finding(finding, fixed=fix and bool(finding.pod)) for finding in findings]
        return {"findings": [*shown, *map(present_stray, strays)], "reserved": reserved}
