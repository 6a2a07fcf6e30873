"""Measurements of this node: the one it asks for, and the one it serves. One at a time in all.

    asking    open: say BenchRequest until answered --> Ready: an offer for the near end
              until release, or the far end says BenchDone, or its time is up
    serving   BenchAsked --> check, start the far end's process --> BenchReady, or Refusal
              until that process ends, or the asker says BenchDone, or its time is up

Two measurements at once would measure each other, so a node that asks does not serve.

Error contract: whatever happens to a measurement, the child process is ended and waited for. What
a member asks never raises; it is refused.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from node import children
from node.bench.far import Place, Task
from node.control.ports import DaemonPort
from node.control.schema import ControlError
from node.control.targets import Target
from node.tasks import spawn, stop
from overlay.effects import BenchAnswered, BenchAsked, BenchEffect, BenchEnded
from overlay.talk import CODE_PREFIX
from overlay.types import Address, NodeId
from overlay.views import NodeView, Snapshot
from overlay.wire.control import encode
from overlay.wire.messages import (
    BENCH_LONGEST,
    BENCH_TOKEN_SIZE,
    BenchDone,
    BenchReady,
    BenchRequest,
    Message,
    Refusal,
)

REPEAT: Final = 0.5
ANSWER_PATIENCE: Final = 6.0
"""Seconds for the far end's process to start on a machine that is busy."""

START_PATIENCE: Final = 5.0
MARGIN: Final = 5.0
"""Seconds that a far end may live longer than was asked for."""

Json = dict[str, object]
Key = tuple[NodeId, int]
"""Who asked, or is asked, and the request's number."""


@dataclass(slots=True)
class _Asking:
    key: Key
    name: str
    until: float
    answer: asyncio.Future[BenchAnswered | None]


@dataclass(slots=True)
class _Serving:
    key: Key
    name: str
    ready: BenchReady | None = None
    task: asyncio.Task[None] | None = None


class Benches:
    """Both sides.

    Args:
        daemon: what to act on.
    """

    def __init__(self, daemon: DaemonPort) -> None:
        self._daemon = daemon
        self._asking: _Asking | None = None
        self._serving: _Serving | None = None

    # -- asking ----------------------------------------------------------------------------------

    async def open(self, request: int, target: Target, seconds: float) -> Json | None:
        """Have a far end made at a target.

        Args:
            request: a number of the caller's choice, for `release`.
            target: a pod or node elsewhere.
            seconds: how long the far end is needed at most.

        Returns:
            What the near end needs; None if the target's node did not answer.

        Raises:
            ControlError: a measurement is under way here, the target is of this node, or its node
                refused. Nothing else.
        """
        node = target.node
        if node.local:
            why = f"{target.name} is on this node"
            raise ControlError("local", why, "name a node, or a pod of another node")
        busy = self._busy()
        if busy:
            raise ControlError("bench-busy", busy, "wait until it is over")
        if not 0 < seconds <= BENCH_LONGEST:
            raise ControlError("bad-request", f"seconds must be at most {BENCH_LONGEST}")
        until = self._daemon.now() + seconds
        future: asyncio.Future[BenchAnswered | None] = asyncio.get_running_loop().create_future()
        self._asking = asking = _Asking((node.id, request), node.name, until, future)
        underlay = _underlay_of(self._snapshot(), node)
        question = BenchRequest(
            request,
            target.address.packed,
            ip_address(underlay).packed if underlay else b"",
            max(1, round(seconds)),
        )
        answer: BenchAnswered | None = None
        try:
            answer = await self._answer(asking, question)
        finally:
            if answer is None or answer.code:
                self._forget(asking)
        if answer is None:
            return None
        if answer.code:
            raise ControlError(answer.code, f"{node.name} declined: {answer.text}")
        return {
            "request": request,
            "port": answer.port,
            "underlay": underlay,
            "underlay_port": answer.underlay_port,
            "token": answer.token.hex(),
            "daemon": self._daemon.facts().pid,
        }

    async def _answer(self, asking: _Asking, question: BenchRequest) -> BenchAnswered | None:
        """The answer to a question that is repeated until it comes; None if it does not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_PATIENCE):
                while not asking.answer.done():
                    self._say(asking.key[0], question)
                    await asyncio.wait([asking.answer], timeout=REPEAT)
                return asking.answer.result()
        return None

    async def release(self, request: int) -> None:
        """A measurement that this node asked for is over. One that is not known is fine."""
        asking = self._asking
        if asking is not None and asking.key[1] == request:
            self._forget(asking)

    def _forget(self, asking: _Asking) -> None:
        if self._asking is asking:
            self._asking = None
            self._say(asking.key[0], BenchDone(asking.key[1]))
        if not asking.answer.done():
            asking.answer.set_result(None)

    # -- what members say ------------------------------------------------------------------------

    def on_effect(self, effect: BenchEffect) -> None:
        """A member said something about a measurement."""
        # Later: the engine is in the middle of telling effects, and answers are effects again.
        asyncio.get_running_loop().call_soon(self._on_effect, effect)

    def _on_effect(self, effect: BenchEffect) -> None:
        key = (effect.node, effect.request)
        match effect:
            case BenchAsked():
                self._asked(effect)
            case BenchAnswered():
                asking = self._asking
                if asking is not None and asking.key == key and not asking.answer.done():
                    asking.answer.set_result(effect)
            case BenchEnded():
                if self._serving is not None and self._serving.key == key:
                    if self._serving.task is not None:
                        self._serving.task.cancel()
                elif self._asking is not None and self._asking.key == key:
                    self._asking = None

    # -- serving ---------------------------------------------------------------------------------

    def _asked(self, asked: BenchAsked) -> None:
        key = (asked.node, asked.request)
        if self._serving is not None and self._serving.key == key:
            if self._serving.ready is not None:  # the answer was lost
                self._say(asked.node, self._serving.ready)
            return
        snapshot = self._snapshot()
        asker = next((node for node in snapshot.nodes if node.id == asked.node), None)
        task = _task(snapshot, asker, asked, self._daemon.facts().pid)
        code, why = self._unwilling()
        if task is None and not code:
            code, why = "no-address", f"{ip_address(asked.address)} is not of it or of its pods"
        if code or task is None or asker is None:
            self._say(asked.node, Refusal(asked.request, CODE_PREFIX + code, why))
            return
        self._serving = serving = _Serving(key, asker.name)
        serving.task = spawn(self._serve(serving, task), name="bench")

    def _unwilling(self) -> tuple[str, str]:
        """The code and the reason why nothing is served now; empty if something is."""
        if not self._daemon.serves_bench():
            return "off", "its settings say bench = false"
        busy = self._busy()
        return ("busy", busy) if busy else ("", "")

    async def _serve(self, serving: _Serving, task: Task) -> None:
        node, request = serving.key
        refusal = Refusal(request, f"{CODE_PREFIX}failed", "its measuring process did not start")
        answered = False
        process: asyncio.subprocess.Process | None = None
        try:
            process = await _start(task)
            ports = await _ports(process)
            if "port" in ports:
                token = bytes.fromhex(task.overlay.token + task.underlay.token)
                port, beside = (int(str(ports[key])) for key in ("port", "underlay_port"))
                serving.ready = BenchReady(request, token, port, beside)
                self._say(node, serving.ready)
                answered = True
                async with asyncio.timeout(task.seconds + MARGIN):
                    await process.wait()
        except (OSError, TimeoutError):
            pass  # it did not start, or its time is up
        finally:
            try:
                if process is not None:
                    await _end(process)
            finally:
                self._serving = None
                self._say(node, BenchDone(request) if answered else refusal)

    async def close(self) -> None:
        """End everything: the daemon stops."""
        if self._serving is not None and self._serving.task is not None:
            await stop(self._serving.task)

    # -- both ------------------------------------------------------------------------------------

    def _busy(self) -> str:
        """Why nothing else can be measured now; empty if it can."""
        if self._asking is not None and self._daemon.now() < self._asking.until:
            return f"a measurement to {self._asking.name} is under way"
        if self._serving is not None:
            return f"a measurement from {self._serving.name} is under way"
        return ""

    def _say(self, node: NodeId, message: Message) -> None:
        daemon = self._daemon
        daemon.perform(daemon.engine.say(node, encode(message), daemon.now()))

    def _snapshot(self) -> Snapshot:
        return self._daemon.engine.snapshot(self._daemon.now())


def _underlay_of(snapshot: Snapshot, node: NodeView) -> str:
    """The underlay address that a node is reached at now; empty if there is none."""
    for session in snapshot.sessions:
        if session.node == node.name and session.endpoint is not None:
            return session.endpoint.host
    return node.endpoint.host if node.endpoint is not None else ""


def _task(
    snapshot: Snapshot, asker: NodeView | None, asked: BenchAsked, daemon: int
) -> Task | None:
    """What the far end shall do; None if the address is not of this node, or the asker unknown."""
    address = ip_address(asked.address)
    netns = _namespace_of(snapshot, address)
    source = asker and (asker.address if address.version == 4 else asker.address6)
    if asker is None or source is None or netns is None:
        return None
    token = secrets.token_bytes(BENCH_TOKEN_SIZE).hex()
    beside = _usable(ip_address(asked.underlay)) if asked.underlay else ""
    return Task(
        overlay=Place(str(address), netns, str(source), token[:BENCH_TOKEN_SIZE]),
        underlay=Place(
            beside, "", _underlay_of(snapshot, asker) or str(source), token[BENCH_TOKEN_SIZE:]
        ),
        seconds=float(asked.seconds),
        daemon=daemon,
    )


def _namespace_of(snapshot: Snapshot, address: Address) -> str | None:
    """Where a process must be to have an address; empty: where the daemon is, None: nowhere."""
    if address in {snapshot.address, snapshot.address6}:
        return ""
    for pod in snapshot.pods:
        if pod.local and address in {pod.address, pod.address6}:
            return pod.netns
    return None


def _usable(address: Address) -> str:
    """An address to listen at; empty for one that would mean more than itself."""
    return "" if address.is_unspecified or address.is_multicast else str(address)


async def _start(task: Task) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *children.command("node.bench.far"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=children.environment(),
        start_new_session=True,  # Ctrl-C is for the daemon, which ends its child itself
    )
    assert process.stdin is not None
    process.stdin.write(task.encode())  # the token is not for `ps` to show
    return process


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    with suppress(ProcessLookupError):
        process.kill()
    process.stdin.close()
    await process.wait()


async def _ports(process: asyncio.subprocess.Process) -> Json:
    """What the child listens on; empty when it says something else, or nothing."""
    assert process.stdout is not None
    async with asyncio.timeout(START_PATIENCE):
        line = await process.stdout.readline()
    try:
        ports = json.loads(line)
    except ValueError:
        return {}
    return ports if isinstance(ports, dict) else {}
