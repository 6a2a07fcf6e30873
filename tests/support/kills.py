"""Daemons killed at random while pods come and go, and whether anything is wrong afterwards.

    node1 .. nodeN   each with two pods that stay, and others that come and go
    pod1 -> pod2     ten pings per second on each node, IPv4 and IPv6: not one may be lost
    pod1 -> pod1     of the next node: how long none is answered

A daemon that was killed is started again at once, as a supervisor does it; another kill may meet it
while it starts. In the end the tables of all nodes must agree with each other and with the truth,
every pod must reach every other, and without the pods that came nothing may be left of them.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from node.errors import NodeError
from node.kernel import netns
from node.lab.processes import has_ended, signal_daemon
from node.lab.readiness import View, last_line, what_is_missing
from tests.support.comers import Comers
from tests.support.labs import Lab, LabMaker
from tests.support.left import changed, inventory
from tests.support.machines import Machine
from tests.support.mesh import unreached
from tests.support.pings import Pings
from tests.support.waiting import eventually, steady

SETTLED = 60.0
"""Seconds until everything must be right after the last kill. None of it is measured."""

LOOK = 0.1
KILL_PATIENCE = 10.0
PASSING = ("age", "seen", "rtt", "loss", "path", "local", "endpoint", "via", "state")
"""What nodes may show differently of the same thing, or is looked at by itself."""


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        kills: how many.
        starts: seconds from a kill until the daemon answered, where no other kill came between.
        figures: of the pods that came and went, and of requests; see `Comers`.
        pods: how many were there in the end.
        unreached: pairs of them, in one direction and family, that nothing passed between.
        same: pings between pods of one node.
        cross: pings between pods of different nodes.
        wrong: everything that must not be, as text.
    """

    kills: int = 0
    starts: list[float] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    pods: int = 0
    unreached: int = 0
    same: list[Pings] = field(default_factory=list)
    cross: list[Pings] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def stall(self) -> float:
        """The longest time without an answer between different nodes, in seconds."""
        return max((one.stall for one in self.cross), default=0.0)

    def start(self) -> tuple[float, float]:
        """Median and longest time until a daemon answered again, in seconds."""
        times = self.starts or [0.0]
        return statistics.median(times), max(times)


class Supervisor:
    """Kills daemons and starts them again.

    Args:
        machines: whose.
        outcome: where it is written down.
    """

    def __init__(self, machines: list[Machine], outcome: Outcome) -> None:
        self._machines = {machine.name: machine for machine in machines}
        self._pids = {machine.name: machine.pid for machine in machines}
        self._outcome = outcome
        self._starting: dict[str, float] = {}

    def kill(self, name: str) -> None:
        """Kill one, and start it at once."""
        machine = self._machines[name]
        if not signal_daemon(machine.state, signal.SIGKILL, KILL_PATIENCE):
            self._ended(machine)
        self._starting[name] = time.monotonic()
        self._pids[name] = machine.start()
        self._outcome.kills += 1

    def look(self) -> None:
        """Note who answers again; and who has ended by itself, which none may."""
        for name, machine in self._machines.items():
            pid = self._pids[name]
            if pid is not None and has_ended(pid):
                self._ended(machine)
                self._pids[name] = machine.start()
            if name in self._starting and _answers(machine):
                self._outcome.starts.append(time.monotonic() - self._starting.pop(name))

    def _ended(self, machine: Machine) -> None:
        self._outcome.wrong.append(f"{machine.name} ended by itself: {last_line(machine.log)}")


def _answers(machine: Machine) -> bool:
    try:
        return bool(machine.ask("status")["address"])
    except NodeError:
        return False


def kills(
    make_lab: LabMaker,
    *,
    nodes: int,
    count: int,
    seconds: float,
    seed: int,
    pace: float = 0.5,
    tell: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Kill, and look at everything.

    Args:
        make_lab: makes the lab.
        nodes: of the lab.
        count: kills.
        seconds: in which they happen, at random moments.
        seed: of everything that is left to chance.
        pace: seconds between two changes of one node's pods, on average.
        tell: told what happens.
    """
    lab = make_lab(nodes, 2, settings={"MUSLIN_QUARANTINE": "5"})
    machines = [Machine(lab.info, node.name) for node in lab.nodes]
    rng, outcome = random.Random(seed), Outcome()
    comers = [Comers(machine, random.Random(rng.random()), pace) for machine in machines]
    with ExitStack() as stack:
        for each in comers:
            stack.callback(each.drop)
        before = _first(lab, machines, comers)
        tell(f"{nodes} nodes are up")
        _ping(lab, stack, outcome)
        with ExitStack() as churning:
            for each in comers:
                churning.enter_context(each)
            _strike(machines, outcome, (count, seconds, rng), tell)
        tell("the last kill is over; are the tables right?")
        _compare(lab, machines, comers, outcome)
        _add_up(comers, outcome)
        tell("and is anything left?")
        _clear(lab, machines, comers, before, outcome)
    outcome.wrong += [
        f"{one.lost} pings from {one.source.name} to {one.address} were lost"
        for one in outcome.same
        if one.lost or not one.sent
    ]
    return outcome


def _first(lab: Lab, machines: list[Machine], comers: list[Comers]) -> list[set[str]]:
    """What there is before, on nodes that have been killed once and had pods of every kind."""
    for machine in machines:
        machine.stop(signal.SIGKILL)
        machine.start()
    for each in comers:
        each.add(ingress=100_000_000, egress=100_000_000, ports=[{"host_port": 9000, "port": 80}])
        each.clear()
        each.figures.clear()
    eventually(lambda: not _differences(lab, machines, {}), within=SETTLED, poll=0.5)
    # A daemon has more descriptors, and its namespace more processes, while `nft` runs.
    return [steady(partial(inventory, machine), within=SETTLED, poll=0.5) for machine in machines]


def _ping(lab: Lab, stack: ExitStack, outcome: Outcome) -> None:
    for at, node in enumerate(lab.nodes):
        here, beside = lab[f"{node.name}-pod1"], lab[f"{node.name}-pod2"]
        far = lab[f"{lab.nodes[(at + 1) % len(lab.nodes)].name}-pod1"]
        for family in (4, 6):
            outcome.same.append(stack.enter_context(Pings(here, beside.at(family))))
        outcome.cross.append(stack.enter_context(Pings(here, far.at(4))))


def _strike(
    machines: list[Machine],
    outcome: Outcome,
    plan: tuple[int, float, random.Random],
    tell: Callable[[str], object],
) -> None:
    """All kills; returns after the last one.

    Args:
        machines: of whom any may be killed, any time.
        outcome: where it is written down.
        plan: how many, in how many seconds, and what decides when and whom.
        tell: told of every tenth.
    """
    count, seconds, rng = plan
    supervisor = Supervisor(machines, outcome)
    began = time.monotonic()
    for number, moment in enumerate(sorted(rng.uniform(0.0, seconds) for _ in range(count)), 1):
        while (wait := began + moment - time.monotonic()) > 0:
            supervisor.look()
            time.sleep(min(wait, LOOK))
        supervisor.kill(rng.choice(machines).name)
        if number % 10 == 0:
            tell(f"{number} kills")
    while time.monotonic() < began + seconds:
        supervisor.look()
        time.sleep(LOOK)


def _add_up(comers: list[Comers], outcome: Outcome) -> None:
    for each in comers:
        outcome.figures += each.figures
        outcome.wrong += each.failures


# -- whether everything is right -------------------------------------------------------------------


def _compare(lab: Lab, machines: list[Machine], comers: list[Comers], outcome: Outcome) -> None:
    """Tables against each other and the truth, and every pod against every other."""
    vanished = {f"{pod.node}/{pod.name}" for each in comers for pod in each.vanished.values()}
    for machine in machines:
        eventually(partial(_answers, machine), within=SETTLED)
        found = machine.ask("ipam.check", fix=True)["findings"]
        outcome.wrong += [
            f"{machine.name}: {one['what']}: {one['why']}"
            for one in found
            if f"{machine.name}/{one['frees']}" not in vanished
            and one["code"] != "blocks-unreachable"
        ]
    truth = {f"{pod.node}/{pod.name}": pod for each in comers for pod in each.held.values()}
    outcome.pods = len(truth) + len(lab.pods)
    outcome.wrong += _in_the_end(lambda: _differences(lab, machines, truth))
    pairs = unreached([*lab.pods, *truth.values()], within=SETTLED)
    outcome.unreached = len(pairs)
    outcome.wrong += pairs


def _in_the_end(look: Callable[[], list[str]]) -> list[str]:
    """What `look` still finds when it has had the time that everything may take."""
    deadline = time.monotonic() + SETTLED
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _differences(lab: Lab, machines: list[Machine], truth: dict[str, Any]) -> list[str]:
    """What nodes show otherwise than it is, or than others do."""
    try:
        return _shown(lab, machines, truth)
    except NodeError as error:
        return [str(error)]


def _shown(lab: Lab, machines: list[Machine], truth: dict[str, Any]) -> list[str]:
    there = {f"{pod.node}/{pod.name}": pod for pod in lab.pods} | truth
    pods = [
        {"name": pod.name, "node": pod.node, "address": pod.address, "address6": pod.address6}
        for pod in there.values()
    ]
    expected = {(pod["node"], pod["name"], pod["address"], pod["address6"]) for pod in pods}
    names = [machine.name for machine in machines]
    wrong, told = [], dict[str, list[Any]]()
    for machine in machines:
        name = machine.name
        rows = {kind: machine.get(kind) for kind in ("nodes", "pods", "routes", "blocks")}
        shown = {
            (row["node"], row["name"], row["address"], row["address6"]) for row in rows["pods"]
        }
        wrong += [f"{name} shows pod {pod} that is not" for pod in sorted(shown - expected)]
        wrong += [f"{name} does not show pod {pod}" for pod in sorted(expected - shown)]
        bad = [
            row["name"] for row in rows["pods"] if row["node"] == name and row["state"] != "ready"
        ]
        wrong += [f"{name} shows its pod {pod} not ready" for pod in bad]
        stale = [row["prefix"] for row in rows["routes"] if row["state"] != "live"]
        wrong += [f"{name} shows a stale route to {prefix}" for prefix in stale]
        missing = what_is_missing(
            name, View(rows["nodes"], rows["routes"], rows["pods"]), names, pods
        )
        wrong += [missing] if missing else []
        wrong += _unwell(machine)
        for kind in ("nodes", "blocks", "routes"):
            told.setdefault(kind, []).append(_lasting(rows[kind]))
    wrong += [
        f"nodes differ on {kind}: {told[kind]}"
        for kind in ("nodes", "blocks")
        if _differ(told[kind])
    ]
    return wrong + _routes_differ(names, told["routes"])


def _lasting(rows: list[Any]) -> list[Any]:
    kept = [{key: row[key] for key in row if key not in PASSING} for row in rows]
    return sorted(kept, key=str)


def _differ(views: list[Any]) -> bool:
    return any(view != views[0] for view in views)


def _routes_differ(names: list[str], views: list[Any]) -> list[str]:
    """Whether two nodes have different routes to a third."""
    wrong = []
    for name in names:
        seen = [
            sorted((row["prefix"], row["origin"]) for row in view if row["node"] == name)
            for other, view in zip(names, views, strict=True)
            if other != name
        ]
        wrong += [f"nodes differ on routes to {name}: {seen}"] if _differ(seen) else []
    return wrong


def _unwell(machine: Machine) -> list[str]:
    """What a node says is wrong with itself, and whether its books balance."""
    status = machine.ask("status")
    wrong = [f"{machine.name}: {one['what']}: {one['why']}" for one in status["problems"]]
    ledger = status["ledger"]
    left = ledger["in"] - ledger["out"] - ledger["queued"] - sum(ledger["drops"].values())
    wrong += [f"{machine.name}: the ledger is off by {left}"] if left else []
    found = machine.ask("ipam.check")["findings"]
    return wrong + [f"{machine.name}: {one['what']}: {one['why']}" for one in found]


def _clear(
    lab: Lab,
    machines: list[Machine],
    comers: list[Comers],
    before: list[set[str]],
    outcome: Outcome,
) -> None:
    """Delete what came; nothing may be left of it, and nothing be gone that was there."""
    for each in comers:
        each.clear()
    outcome.wrong += _in_the_end(lambda: _differences(lab, machines, {}))

    def left() -> list[str]:
        return [
            f"{machine.name}: {line}"
            for machine, had in zip(machines, before, strict=True)
            for line in changed(had, inventory(machine))
        ]

    outcome.wrong += _in_the_end(left)
    own = f"muslin-{lab.info.cluster[:8]}-"
    outcome.wrong += [f"namespace {name} is left" for name in netns.names() if name.startswith(own)]


def same_node_lost(outcome: Outcome) -> int:
    """Pings that were lost between pods of the same node."""
    return sum(one.lost for one in outcome.same)
