"""What each method of the control socket does.

    status                          the node's state, problems and ledger
    metrics                         the same and more, as OpenMetrics text
    get       kind                  the objects of one kind, see `node.control.present`
    token...                        see `node.control.tokens`
    cert...                         see `node.control.certificates`
    authority...                    see `node.control.authority`
    pod...                          see `node.control.pods`
    address..., ipam.check          see `node.control.addresses`
    ping      target, timeout?, version?    one round over every leg of the way
    bench.open    request, target, seconds   have a far end made, and say how to reach it
    bench.close   request                    it is not needed any more
    ipam.claim                      this is the only machine with the node's identity
    leave                           hand everything back, then stop
    remove    name, force?          declare a node dead for ever
    stop                            stop cleanly

A change of pods is made in the kernel and in the engine, one after the other, see
`node.control.pods`. Between the two steps both differ, so they are done in one turn
(`node.control.turns`), and the upkeep of the kernel takes turns as well: in between it would
connect a pod that is being deleted, miss the namespace of one that is being added, or try again
what was just refused. A turn that has begun is finished before the daemon stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from node.control.addresses import Addresses
from node.control.authority import Authority
from node.control.benches import Benches
from node.control.certificates import Certificates
from node.control.doctor import Doctor
from node.control.metrics import exposition
from node.control.params import Params, flag, number, request_number, text
from node.control.pods import Pods
from node.control.ports import DaemonPort
from node.control.present import KINDS, present_status
from node.control.schema import ControlError
from node.control.targets import Target, find_target
from node.control.tokens import Tokens
from node.control.turns import Turns
from node.errors import NodeError
from overlay.effects import FactsEffect, Left, ProbeAnswered, TalkEffect
from overlay.errors import OverlayError
from overlay.types import NodeId
from overlay.views import Snapshot
from overlay.wire.messages import BENCH_LONGEST

PING_TIMEOUT: Final = 1.0
LONGEST_PING: Final = 30.0
LEAVE_TIMEOUT: Final = 10.0
"""Longer than `Timing.leave_after`, after which one confirmation is enough for the engine."""


class Handlers:
    """All methods. The daemon passes on the effects that answer earlier requests.

    Args:
        daemon: what the methods act on.

    Attributes:
        turns: taken by whoever changes pods, and by the upkeep of the kernel. Short on a good
            disk: storing and attaching is the longest that is done in one.
        benches: the measurements.
        pods: what is asked for of pods.
    """

    def __init__(self, daemon: DaemonPort) -> None:
        self._daemon = daemon
        self.turns = Turns()
        self._probes: dict[int, asyncio.Future[float]] = {}
        self._next_probe = 1
        self._left: asyncio.Future[int] | None = None
        self.benches = Benches(daemon)
        self.pods = Pods(daemon, self.turns)
        self._doctor = Doctor(daemon)
        self._methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "status": self._status,
            "metrics": self._metrics,
            "get": self._get,
            "ping": self._ping,
            "bench.open": self._bench_open,
            "bench.close": self._bench_close,
            "ipam.claim": self._ipam_claim,
            "leave": self._leave,
            "remove": self._remove,
            "stop": self._stop,
            "doctor": self._doctor.examine,
            **self.pods.methods,
            **Addresses(daemon, self.turns).methods,
            **Tokens(daemon).methods,
            **Certificates(daemon).methods,
            **Authority(daemon).methods,
        }

    async def dispatch(self, method: str, params: Params) -> object:
        """Do one request; the `Dispatch` of `node.control.server`.

        Raises:
            ControlError: no such method, or a parameter is missing or of the wrong type.
            OverlayError: the request was declined or failed.
        """
        handler = self._methods.get(method)
        if handler is None:
            why = f"the daemon knows no method {method[:64]!r}"
            raise ControlError("unknown-method", why, "use the command of the daemon's version")
        return await handler(params)

    def probe_answered(self, effect: ProbeAnswered) -> None:
        """The daemon tells that a probe came back."""
        waiter = self._probes.get(effect.token)
        if waiter is not None and not waiter.done():
            waiter.set_result(effect.rtt)

    def heard(self, effect: TalkEffect) -> None:
        """The daemon tells that a member said something about machines."""
        if isinstance(effect, FactsEffect):
            self._doctor.heard(effect)
        else:
            self.benches.on_effect(effect)

    def left(self, effect: Left) -> bool:
        """The daemon tells that the node has left; False if no request waits for that."""
        if self._left is None or self._left.done():
            return False
        self._left.set_result(effect.confirmed)
        return True

    async def close(self) -> None:
        """Finish the changes of pods that were asked for; none begins any more."""
        await self.turns.close()

    # -- looking -----------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        return self._daemon.engine.snapshot(self._daemon.now())

    async def _status(self, _: Params) -> object:
        await self._daemon.refresh()
        return present_status(self._snapshot(), self._daemon.facts())

    async def _metrics(self, _: Params) -> object:
        await self._daemon.refresh()
        return {"text": exposition(self._snapshot(), self._daemon.facts())}

    async def _get(self, params: Params) -> object:
        kind = text(params, "kind")
        if kind not in KINDS:
            why = f"there is no kind {kind!r}"
            raise ControlError("unknown-kind", why, f"kinds are: {', '.join(KINDS)}")
        if kind == "sessions":
            await self._daemon.refresh()
        return KINDS[kind](self._snapshot(), self._daemon.facts())

    # -- changing ----------------------------------------------------------------------------------

    def _has_problem(self, code: str) -> str:
        """Why the engine has that problem; empty if it has not."""
        problems = self._snapshot().problems
        return next((problem.why for problem in problems if problem.code == code), "")

    async def _ipam_claim(self, _: Params) -> object:
        await self._daemon.stored(self._daemon.engine.claim(self._daemon.now()))
        return {"node": self._snapshot().name}

    async def _leave(self, _: Params) -> object:
        async with self.turns.alone():
            pods = [pod.name for pod in self._snapshot().pods if pod.local]
            left = await self._ask_to_leave()
        await asyncio.wait([left], timeout=LEAVE_TIMEOUT)
        if left.cancelled() or left.cancel():
            fix = "see that another node is reachable, then ask again"
            raise NodeError("leaving takes too long", fix)
        try:
            async with self.turns.alone():
                for pod in pods:
                    await self._daemon.detach_pod(pod)
        finally:
            self._daemon.request_stop()  # the node has left, whatever the kernel says
        return {"confirmed": left.result()}

    async def _ask_to_leave(self) -> asyncio.Future[int]:
        """What will say that the node has left: one for all who ask."""
        if self._left is not None and not self._left.cancelled():
            return self._left
        self._left = left = asyncio.get_running_loop().create_future()
        try:
            await self._daemon.stored(self._daemon.engine.leave(self._daemon.now()))
        except OverlayError:
            left.cancel()  # nobody waits for it
            raise
        return left

    async def _remove(self, params: Params) -> object:
        name, force = text(params, "name"), flag(params, "force")
        engine = self._daemon.engine
        await self._daemon.stored(engine.remove(name, self._daemon.now(), force=force))
        return {"name": name, "waits": self._has_problem("reclaim-waits") or None}

    async def _stop(self, _: Params) -> object:
        self._daemon.request_stop()
        return {}

    # -- reaching ----------------------------------------------------------------------------------

    async def _ping(self, params: Params) -> object:
        timeout = min(number(params, "timeout", PING_TIMEOUT), LONGEST_PING)
        version = params.get("version")
        if version not in (None, 4, 6):
            raise ControlError("bad-request", "version must be 4 or 6")
        target = find_target(
            self._snapshot(),
            text(params, "target"),
            version=version if isinstance(version, int) else None,
        )
        echo = self._daemon.ping_address(target.address, timeout)
        if target.node.local:
            legs = [_leg(target.kind, str(target.address), await echo)]
        else:
            probe = self._probe(target.node.id, timeout)
            across, answered = await asyncio.gather(probe, echo)
            legs = [
                _leg("overlay", target.node.name, across),
                _leg(target.kind, str(target.address), answered),
            ]
        return {**_shown(target), "legs": legs}

    async def _bench_open(self, params: Params) -> object:
        request, seconds = request_number(params), number(params, "seconds", BENCH_LONGEST)
        target = find_target(self._snapshot(), text(params, "target"))
        offer = await self.benches.open(request, target, seconds)
        if offer is not None:
            return {**_shown(target), **offer}
        node = target.node
        if await self._probe(node.id, PING_TIMEOUT) is None:
            why, fix = f"{node.name} ({node.state}) does not answer", "look at its daemon"
            raise ControlError("no-answer", why, f"{fix}, and at the underlay between the nodes")
        why = f"{node.name} is reachable but its version ({node.version}) cannot be measured"
        raise ControlError("too-old", why, "update it")

    async def _bench_close(self, params: Params) -> object:
        await self.benches.release(request_number(params))
        return {}

    async def _probe(self, node: NodeId, timeout: float) -> float | None:  # noqa: ASYNC109
        token, self._next_probe = self._next_probe, self._next_probe + 1
        waiter: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._probes[token] = waiter
        try:
            self._daemon.perform(self._daemon.engine.probe(node, token, self._daemon.now()))
            async with asyncio.timeout(timeout):
                return await waiter
        except TimeoutError:
            return None
        finally:
            del self._probes[token]


def _shown(target: Target) -> dict[str, object]:
    return {
        "target": target.name,
        "kind": target.kind,
        "node": target.node.name,
        "address": str(target.address),
        "path": target.node.path,
        "state": str(target.node.state),
    }


def _leg(leg: str, to: str, rtt: float | None) -> dict[str, object]:
    return {"leg": leg, "to": to, "rtt": None if rtt is None else round(rtt, 6)}
