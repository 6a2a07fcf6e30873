"""Eight real daemons: a partition that both halves use, a node that dies, one that stands still.

    node1 .. node4        |        node5 .. node8
    pods come and go      |        pods come and go         60 s apart, then whole again
    TCP node1 -- node2    |        TCP node5 -- node6       never interrupted

What the simulator proves of many more nodes is shown here once with kernels, sockets and clocks.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest

from node.lab.processes import daemon_pid
from node.lab.verbs import lab_start
from tests.support.labs import Lab, LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.streams import Stream
from tests.support.traffic import reaches
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone("netns")]

NODES = 8
APART = 60.0
"""Seconds that the two halves do not hear each other: longer than it takes to declare one dead."""

CHURN = 100
"""Pods that are created and deleted on each side meanwhile."""

AGREE_WITHIN = 5.0
"""Seconds from the end of the partition until all routes are the same everywhere."""

NOTICED_WITHIN = 8.0
"""Seconds from the death of a daemon until every other one says so."""

STANDS_STILL = 5.0
"""Seconds for which a daemon is stopped without anybody declaring it dead."""

LONGEST_PAUSE = 2.0
"""Seconds without a byte on a TCP connection that would count as an interruption. Two cores run
eight daemons, the pods' ends and whatever else is going on, so this is far above a round trip."""

SOON = 60.0


@pytest.fixture(scope="module")
def lab(make_module_lab: LabMaker) -> Lab:
    return make_module_lab(nodes=NODES, pods=1)


@pytest.fixture(autouse=True)
def settled(lab: Lab) -> None:
    """Everybody sees everybody before each test."""
    lab.heal()
    eventually(lambda: all(sees_all_ready(lab, at) for at in names(lab)), within=60.0)


def names(lab: Lab) -> list[str]:
    return [node.name for node in lab.nodes]


def pid_of(lab: Lab, node: str) -> int:
    pid = daemon_pid(lab.info.state(node))
    assert pid is not None
    return pid


def states(lab: Lab, at: str) -> dict[str, str]:
    return {row["name"]: row["state"] for row in lab.get(at, "nodes")}


def alive(lab: Lab, at: str) -> set[str]:
    return {name for name, state in states(lab, at).items() if state == "ready"}


def sees_all_ready(lab: Lab, at: str) -> bool:
    return set(states(lab, at).values()) == {"ready"}


def routes(lab: Lab, at: str) -> set[tuple[str, str]]:
    return {(row["prefix"], row["node"]) for row in lab.get(at, "routes")}


def pods(lab: Lab, at: str) -> set[tuple[str, str, str, str]]:
    return {
        (row["node"], row["name"], row["address"], row["address6"]) for row in lab.get(at, "pods")
    }


def agree(lab: Lab) -> bool:
    """Whether all nodes have the same routes, of all nodes, and list the same pods."""
    everyone = names(lab)
    first = routes(lab, everyone[0])
    return (
        {node for _, node in first} == set(everyone)
        and all(routes(lab, at) == first for at in everyone[1:])
        and all(pods(lab, at) == pods(lab, everyone[0]) for at in everyone[1:])
    )


@contextmanager
def watched(*streams: Stream) -> Iterator[list[float]]:
    """The longest time without progress of each stream while the block runs."""
    longest = [0.0] * len(streams)
    ended = threading.Event()

    def watch() -> None:
        seen = [(stream.moved, time.monotonic()) for stream in streams]
        while not ended.wait(0.02):
            now = time.monotonic()
            for place, stream in enumerate(streams):
                if stream.moved != seen[place][0]:
                    seen[place] = (stream.moved, now)
                longest[place] = max(longest[place], now - seen[place][1])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield longest
    finally:
        ended.set()
        watcher.join()


def churn(lab: Lab, side: list[str], until: float) -> list[str]:
    """Create and delete `CHURN` pods on the nodes of one side, a few at a time, until `until`.

    Returns:
        Every address that was handed out, of both families, and those of pods that stay.
    """
    given: list[str] = []
    pause = (until - time.monotonic()) / CHURN
    for number in range(CHURN):
        at, name = side[number % len(side)], f"churn{number}"
        pod: Any = lab.ask(at, "pod.add", name=name)
        given += [pod["address"], pod["address6"]]
        if (old := number - len(side)) >= 0:
            lab.ask(side[old % len(side)], "pod.del", name=f"churn{old}")
        time.sleep(max(0.0, min(pause, until - time.monotonic() - (CHURN - number) * pause)))
    return given


def test_two_halves_work_on_for_a_minute_and_are_one_again_in_5_s(lab: Lab) -> None:
    everyone = names(lab)
    halves = everyone[:4], everyone[4:]
    began = time.monotonic()
    for one, other in product(*halves):
        lab.cut(one, other)
    with (
        Stream(lab["node1-pod1"], lab["node2-pod1"]) as here,
        Stream(lab["node5-pod1"], lab["node6-pod1"]) as there,
        watched(here, there) as longest,
    ):
        with ThreadPoolExecutor(2) as hands:
            ends = began + APART - 5.0
            given = list(hands.map(lambda side: churn(lab, side, ends), halves))
        time.sleep(max(0.0, began + APART - time.monotonic()))
        for side, away in (halves, halves[::-1]):
            for at in side:
                expected = dict.fromkeys(side, "ready") | dict.fromkeys(away, "dead")
                eventually(
                    lambda at=at, expected=expected: states(lab, at) == expected, within=SOON
                )
                # A dead node's routes stay: only its owner or an operator takes them away.
                assert {node for _, node in routes(lab, at)} == set(everyone)
        healed = time.monotonic()
        lab.heal()
        eventually(lambda: agree(lab), within=AGREE_WITHIN - (time.monotonic() - healed))
        here.moves()
        there.moves()
    assert max(longest) < LONGEST_PAUSE, longest
    assert not set(given[0]) & set(given[1])
    listed = [address for _, _, *both in pods(lab, "node1") for address in both]
    assert len(set(listed)) == len(listed)
    eventually(lambda: reaches(lab["node1-pod1"], lab["node8-pod1"].address), within=SOON)
    for at in everyone:
        eventually(lambda at=at: sees_all_ready(lab, at), within=SOON)


def test_a_killed_node_is_noticed_by_all_within_8_s_and_keeps_its_routes(lab: Lab) -> None:
    others = [name for name in names(lab) if name != "node6"]
    before = routes(lab, "node1")
    os.kill(pid_of(lab, "node6"), signal.SIGKILL)
    killed = time.monotonic()
    try:
        for at in others:
            left = NOTICED_WITHIN - (time.monotonic() - killed)
            eventually(lambda at=at: states(lab, at)["node6"] == "dead", within=left)
        for at in others:
            eventually(lambda at=at: alive(lab, at) == set(others), within=SOON)
            assert routes(lab, at) == before
    finally:
        lab_start(lab.name, "node6", store=lab.store)


def test_a_node_that_stands_still_for_5_s_is_declared_dead_by_nobody(lab: Lab) -> None:
    others = [name for name in names(lab) if name != "node3"]
    seen: set[str] = set()
    pid = pid_of(lab, "node3")
    # Not by who looks meanwhile: a look that takes long would make the pause longer.
    wake = threading.Timer(STANDS_STILL, os.kill, (pid, signal.SIGCONT))
    os.kill(pid, signal.SIGSTOP)
    wake.start()
    try:
        while wake.is_alive():
            for at in others:
                seen |= set(states(lab, at).values())
    finally:
        wake.join()
    resumed = time.monotonic()
    while time.monotonic() < resumed + 2 * STANDS_STILL:
        for at in names(lab):
            seen |= set(states(lab, at).values())
    assert "dead" not in seen, "a node was declared dead"
    assert "suspect" in seen, "nobody noticed that it stood still"
    for at in names(lab):
        eventually(lambda at=at: sees_all_ready(lab, at), within=SOON)
