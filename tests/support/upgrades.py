"""A node whose daemon is replaced again and again under traffic, in each of the ways there are.

    node1-pod1 ==== TCP at full speed, numbered datagrams, an idle connection ==== node2-pod1
    node2-pod1 ==== numbered datagrams ==== node2-pod2              daemon of node2: replaced

Ways: `take_over` (a second `muslin up`), `restart` (a service manager's, with its descriptor store)
and `kill` (SIGKILL, and another start).
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from node.kernel import netns
from node.lab.processes import command, daemon_pid, environment, signal_daemon, start_daemon
from node.lab.verbs import lab_kill
from tests.support.labs import Lab, Place
from tests.support.manager import LAUNCH, Manager
from tests.support.numbered import Numbered
from tests.support.processes import PATIENCE, Background, background
from tests.support.streams import SILENCE
from tests.support.traffic import opened
from tests.support.waiting import eventually

NODE = "node2"
SOON = 20.0


def _pid_of(lab: Lab) -> int:
    return int(lab.ask(NODE, "status")["pid"])


def _answers(lab: Lab, pid: int) -> bool:
    """Whether the daemon is that process, and ready."""
    try:
        status = lab.ask(NODE, "status")
    except Exception:  # whatever is wrong, it does not answer
        return False
    return bool(status["pid"] == pid and status["state"] == "ready")


def take_over(lab: Lab) -> float:
    """A second daemon takes the place of the first; seconds until it answers."""
    before = _pid_of(lab)
    node = lab.info.topology.node(NODE)
    began = time.monotonic()
    pid = start_daemon(node.netns, lab.info.state(NODE), lab.info.log(NODE), lab.info.settings)
    eventually(lambda: _answers(lab, pid), within=SOON)
    took = time.monotonic() - began
    # The first has said its last word when the second answers, and may still be about to end.
    eventually(lambda: daemon_pid(lab.info.state(NODE)) == pid != before, within=SOON)
    return took


def kill(lab: Lab) -> float:
    """The daemon is killed and started again; seconds from its start until it answers."""
    lab_kill(lab.name, NODE, signal.SIGKILL, store=lab.store)
    node = lab.info.topology.node(NODE)
    began = time.monotonic()
    pid = start_daemon(node.netns, lab.info.state(NODE), lab.info.log(NODE), lab.info.settings)
    eventually(lambda: _answers(lab, pid), within=SOON)
    return time.monotonic() - began


class Service:
    """The daemon of the node as a service of a manager, for the time of a `with` block.

    Args:
        lab: whose node2 it is; its own daemon is stopped.
        manager: see `tests.support.manager`.
    """

    def __init__(self, lab: Lab, manager: Manager) -> None:
        self._lab = lab
        self._manager = manager
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Service:
        signal_daemon(self._lab.info.state(NODE), signal.SIGTERM, SOON)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(SOON)

    def start(self) -> float:
        """Start it with what the manager keeps; seconds until it answers."""
        variables, descriptors = self._manager.passing()
        lab = self._lab
        began = time.monotonic()
        passed = ",".join(map(str, descriptors))
        with lab.info.log(NODE).open("ab") as log:
            self.process = netns.run_in(
                lab.info.topology.node(NODE).netns,
                subprocess.Popen,
                [sys.executable, "-c", LAUNCH, passed, *command(lab.info.state(NODE), "up")],
                env=environment({**lab.info.settings, **variables}),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        pid = self.process.pid
        eventually(lambda: _answers(lab, pid), within=SOON)
        return time.monotonic() - began

    def restart(self, number: signal.Signals = signal.SIGTERM) -> float:
        """End it and start it again, as `systemctl restart`; seconds that the start took."""
        assert self.process is not None
        self.process.send_signal(number)
        assert self.process.wait(SOON) == (0 if number == signal.SIGTERM else -number)
        return self.start()


class Idle:
    """A connection between two pods on which nothing is said: somebody has gone for coffee."""

    def __init__(self, source: Place, target: Place) -> None:
        with netns.run_in(target.netns, socket.create_server, (target.address, 0)) as server:
            self._near = opened(source, socket.SOCK_STREAM, 4)
            self._near.connect(server.getsockname())
            self._far = server.accept()[0]
        for end in (self._near, self._far):
            end.settimeout(PATIENCE)
        self.says("hello")

    def says(self, word: str) -> None:
        """A word goes there and comes back, on the very same connection."""
        for source, target in ((self._near, self._far), (self._far, self._near)):
            source.sendall(word.encode())
            assert target.recv(100) == word.encode()

    def __enter__(self) -> Idle:
        return self

    def __exit__(self, *_: object) -> None:
        self._near.close()
        self._far.close()


@dataclass
class Load:
    """What flows while a daemon is replaced, and what came of it.

    Attributes:
        flows: numbered datagrams, by their way: `to` the node, `from` it, and `within`.
        idle: the idle connection.
        tcp: iperf3's report; filled in after the block.
    """

    flows: dict[str, Numbered]
    idle: Idle
    tcp: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """All of it goes on."""
        for flow in self.flows.values():
            flow.flows()
        self.idle.says("back")


@contextmanager
def loaded(lab: Lab, *, seconds: int = 0) -> Iterator[Load]:
    """The traffic of the picture above; iperf3 only if it is given seconds, then for so long."""
    there, here, beside = lab["node1-pod1"], lab["node2-pod1"], lab["node2-pod2"]
    flows = {
        "to": Numbered(there, here),
        "from": Numbered(here, there),
        "within": Numbered(here, beside),
    }
    with ExitStack() as stack:
        load = Load(flows, stack.enter_context(Idle(there, here)))
        iperf = stack.enter_context(_iperf(there, here, seconds)) if seconds else None
        for flow in flows.values():
            stack.enter_context(flow)
        yield load
        load.check()
        if iperf is not None:
            load.tcp = json.loads(iperf.rest(seconds + SILENCE))


@contextmanager
def _iperf(source: Place, target: Place, seconds: int) -> Iterator[Background]:
    words = ["iperf3", "-c", target.address, "-t", str(seconds), "-i", "0.1", "-J"]
    with background(target.netns, "iperf3", "-s", "-1", "--forceflush") as server:
        while "listening" not in server.line(PATIENCE):
            pass
        with background(source.netns, *words) as client:
            yield client


def moved(report: dict[str, Any]) -> int:
    """Bytes that iperf3 has moved over its one connection, which was never broken."""
    assert "error" not in report, report["error"]
    assert len(report["end"]["streams"]) == 1
    return int(report["end"]["sum_received"]["bytes"])
