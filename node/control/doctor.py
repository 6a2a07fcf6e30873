"""Asks every member what its machine is like, and answers those who ask.

    doctor    timeout?    what is odd among the machines of the cluster

Asking is repeated until all have answered or the time is up: messages may be lost, and a session
may have to be made first. Many members are asked a few at a time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Final

from node.control.params import Params, number
from node.control.ports import DaemonPort
from node.doctor import Examined, Finding, examine
from node.machine import MachineFacts, read_facts_untrusted, write_facts
from overlay.effects import FactsAsked, FactsEffect, FactsTold
from overlay.errors import StateError
from overlay.types import NodeId
from overlay.views import NodeState, NodeView
from overlay.wire.control import encode
from overlay.wire.messages import Facts, FactsRequest, Message

PATIENCE: Final = 3.0
LONGEST: Final = 60.0
REPEAT: Final = 0.5
"""Seconds between two rounds of asking."""

AT_ONCE: Final = 64
"""Members asked in one round. Each may cost a handshake, and answers with kilobytes."""

FRESH: Final = 1.0
"""Seconds for which an answer to others is good: collecting it costs milliseconds."""

Json = dict[str, object]


class _Asking:
    """One examination under way."""

    def __init__(self, members: list[NodeView]) -> None:
        self.request = secrets.randbits(63)
        self.waiting = {node.id: node for node in members}
        self.told: dict[NodeId, tuple[MachineFacts, float]] = {}
        self.asked: dict[NodeId, float] = {}
        self.done = asyncio.Event()

    def next_round(self) -> list[NodeId]:
        """Whom to ask now: first those who were not asked for longest."""
        order = sorted(self.waiting, key=lambda node: self.asked.get(node, 0.0))
        return order[:AT_ONCE]


class Doctor:
    """Both sides.

    Args:
        daemon: what to ask of and through.
    """

    def __init__(self, daemon: DaemonPort) -> None:
        self._daemon = daemon
        self._under_way: dict[int, _Asking] = {}
        self._machine: MachineFacts = {}
        self._good_until = 0.0

    async def examine(self, params: Params) -> object:
        """The method `doctor`.

        Raises:
            ControlError: `timeout` is no number. Nothing else.
        """
        patience = min(number(params, "timeout", PATIENCE), LONGEST)
        nodes = self._daemon.engine.snapshot(self._daemon.now()).nodes
        gone = {NodeState.LEFT, NodeState.REMOVED}
        members = [node for node in nodes if node.state not in gone]
        asking = _Asking([node for node in members if not node.local])
        self._under_way[asking.request] = asking
        try:
            await self._ask(asking, patience)
        finally:
            del self._under_way[asking.request]
        findings = examine([self._examined(node, asking) for node in members])
        return {"nodes": len(members), "findings": [_present(one) for one in findings]}

    def heard(self, effect: FactsEffect) -> None:
        """A member asks, or answers. What it says never raises."""
        match effect:
            case FactsAsked(node, request):
                self._say(node, Facts(request, self._answer()))
            case FactsTold(node, request, text):
                asking = self._under_way.get(request)
                if asking is not None and asking.waiting.pop(node, None) is not None:
                    facts = read_facts_untrusted(text)
                    asking.told[node] = facts, self._ahead(facts, asking.asked.get(node))
                    if not asking.waiting:
                        asking.done.set()

    async def _ask(self, asking: _Asking, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                while asking.waiting:
                    for node in asking.next_round():
                        asking.asked[node] = time.monotonic()
                        self._say(node, FactsRequest(asking.request))
                    await self._settle(asking)
        except TimeoutError:
            return

    async def _settle(self, asking: _Asking) -> None:
        try:
            async with asyncio.timeout(REPEAT):
                await asking.done.wait()
        except TimeoutError:
            return

    def _ahead(self, facts: MachineFacts, asked: float | None) -> float:
        """How far a member's clock is ahead, if its answer took as long as the question."""
        said = facts.get("time")
        if not isinstance(said, (int, float)) or asked is None:
            return 0.0
        return float(said) - (time.time() - (time.monotonic() - asked) / 2)

    def _examined(self, node: NodeView, asking: _Asking) -> Examined:
        if node.local:
            return Examined(node.name, True, dict(self._daemon.machine()))
        if node.id not in asking.told:
            return Examined(node.name, False, None, f"{node.name} ({node.state}) does not answer")
        facts, ahead = asking.told[node.id]
        return Examined(node.name, False, facts, ahead=ahead)

    def _answer(self) -> str:
        now = time.monotonic()
        if now >= self._good_until:
            self._machine, self._good_until = self._daemon.machine(), now + FRESH
        return write_facts({**self._machine, "time": time.time()})

    def _say(self, node: NodeId, message: Message) -> None:
        daemon = self._daemon
        try:
            daemon.perform(daemon.engine.say(node, encode(message), daemon.now()))
        except StateError:
            return  # it has been removed meanwhile


def _present(finding: Finding) -> Json:
    return {
        "check": finding.check,
        "state": finding.state,
        "nodes": list(finding.nodes),
        "what": finding.what,
        "fix": finding.fix,
    }
