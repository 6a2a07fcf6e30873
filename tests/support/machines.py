"""Machines on which nothing runs yet, and what an operator types on them.

A yard is what a lab is before its daemons start: namespaces with an underlay between them, and a
state folder for each. Commands are the installed `muslin`, run as people run it.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Self

from node.lab.build import bring_up, lab_down
from node.lab.faults import put_in_force
from node.lab.processes import daemon_pid, signal_daemon, start_daemon
from node.lab.readiness import Row, ask
from node.lab.store import LabInfo, LabStore
from node.lab.topology import plan
from node.lab.wiring import wire
from tests.support.labs import OWN_ROOT, Place, logs_in
from tests.support.processes import PATIENCE, Background, attempt, background

MUSLIN = os.path.join(os.path.dirname(sys.executable), "muslin")
"""The console script that installing the project made."""

STOP_PATIENCE = 20.0

_NUMBERS = itertools.count(1)

Done = subprocess.CompletedProcess[str]


class Machine:
    """One machine: what is typed there acts on its node.

    Args:
        info: the yard or lab that it is a part of.
        name: of the machine, and of the node that it is to be.
    """

    def __init__(self, info: LabInfo, name: str) -> None:
        self.info = info
        self.name = name
        self.netns = info.topology.node(name).netns
        self.address = str(info.topology.node(name).address.ip)
        self.state = info.state(name)
        self.log = info.log(name)

    # -- typing --------------------------------------------------------------------------------

    def words(self, *words: object) -> list[str]:
        """The command line of a verb."""
        return [MUSLIN, "--state", str(self.state), *map(str, words)]

    def types(self, *words: object, timeout: float = PATIENCE, before: Sequence[str] = ()) -> Done:
        """Type a verb, whatever comes of it.

        Args:
            words: the verb and what follows.
            timeout: seconds after which the command has failed.
            before: a command that runs it, such as `env A=1`.
        """
        return attempt(self.netns, *before, *self.words(*words), timeout=timeout)

    def says(self, *words: object, timeout: float = PATIENCE) -> str:
        """What a verb prints; it has to succeed."""
        done = self.types(*words, timeout=timeout)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def shows(self, *words: object) -> Any:
        """What a verb shows with `-o json`."""
        return json.loads(self.says(*words, "-o", "json"))

    def running(
        self, *words: object, before: Sequence[str] = ()
    ) -> AbstractContextManager[Background]:
        """A verb that goes on, for the time of a `with` block."""
        return background(self.netns, *before, *self.words(*words))

    def joins(self, member: Machine) -> None:
        """Become a member, with a token of `member`; once is enough."""
        if not self.state.exists():
            self.says("join", member.says("token").strip(), "--name", self.name)

    # -- the daemon ----------------------------------------------------------------------------

    def ask(self, method: str, **params: object) -> Any:
        """Ask the daemon without starting a process for it."""
        return ask(self.info, self.name, method, **params)

    def get(self, kind: str) -> list[Row]:
        """What `get KIND` lists."""
        return list(self.ask("get", kind=kind))

    def place(self, pod: str) -> Place:
        """One of its pods."""
        (row,) = self.shows("get", "pods", f"{self.name}/{pod}")
        return Place(pod, self.name, row["netns"], row["address"], row["address6"])

    def problems(self) -> set[str]:
        """What is wrong with the node, by code."""
        return {problem["code"] for problem in self.ask("status")["problems"]}

    def start(self) -> int:
        """Start the daemon and go on at once; its process id."""
        return start_daemon(self.netns, self.state, self.log, self.info.settings)

    def up(self) -> None:
        """Start the daemon and wait until it has an address."""
        bring_up(self.info, self.info.topology.node(self.name), threading.Event())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon and wait for its end."""
        assert signal_daemon(self.state, number, STOP_PATIENCE), f"{self.name} is not running"

    @property
    def pid(self) -> int | None:
        """The daemon's process id while it runs."""
        return daemon_pid(self.state)

    def files(self) -> dict[str, bytes]:
        """Everything in the state folder but the lock, which says nothing, and the socket."""
        if not self.state.is_dir():
            return {}
        kept = (entry for entry in sorted(self.state.iterdir()) if entry.name != "lock")
        return {entry.name: entry.read_bytes() for entry in kept if entry.is_file()}


class Yard:
    """Machines with an underlay between them. All that is on them is removed with the yard.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._store = LabStore(OWN_ROOT)
        name = f"t{os.getpid()}-yard{next(_NUMBERS)}"
        topology = plan(name, count, 0, underlay="ipv4", mtu=1500, cidr="10.244.0.0/16")
        self.info = self._store.create(topology, {})
        self.machines = [Machine(self.info, node.name) for node in topology.nodes]

    def wire(self) -> None:
        """Make the namespaces and the links between them."""
        wire(self.info.topology)

    def found(self, *options: object) -> Machine:
        """Found a cluster on the first machine, with a running daemon."""
        first = self.machines[0]
        first.says("init", "--name", first.name, *options)
        first.up()
        self.info = self._store.save(self.info, cluster=first.ask("status")["cluster"])
        for machine in self.machines:
            machine.info = self.info
        return first

    def join(self, machine: Machine) -> Machine:
        """Make a machine a member, with a running daemon."""
        machine.joins(self.machines[0])
        machine.up()
        return machine

    def cut(self, *pairs: tuple[Machine, Machine]) -> None:
        """Let exactly these pairs not hear each other; without any, all do."""
        put_in_force(self.info.topology.bridge_netns, [(a.name, b.name) for a, b in pairs])

    @property
    def name(self) -> str:
        """Of the yard: prefix of its namespaces."""
        return self.info.name

    def logs(self) -> dict[str, str]:
        """What the daemons said, by node."""
        return logs_in(self.info.folder)

    def remove(self) -> None:
        """End all daemons, remove all namespaces and folders."""
        lab_down(self.info.name, store=self._store)


class YardMaker:
    """Makes yards, and removes all of them with its `with` block."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.yards: list[Yard] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __call__(self, count: int) -> Yard:
        """A yard of that many machines."""
        yard = Yard(count)
        self.yards.append(yard)
        self._stack.callback(yard.remove)
        yard.wire()
        return yard
