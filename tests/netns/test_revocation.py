"""A removed member with a real, modified daemon: it pings on, joins again, and nobody listens.

node1 (authority) ---- node3            node4: removed; takes no notice of it (`be_deaf`)
    x            \\      x              node2: cut off from all but node4, until the cut heals
node2 ------------- node4 ----- all
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from node import joiner
from node.kernel import netns
from node.lab.processes import command
from node.lab.verbs import lab_kill, lab_start
from node.state import IDENTITY, StateFolder
from overlay.errors import RefusedError
from tests.support.labs import Lab, LabMaker
from tests.support.mallory import LIAR, Mallory
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import Background, attempt, background
from tests.support.traffic import is_answered, reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

WITHIN = 20.0
"""Seconds from the moment on at which a node can know."""

APART = "node2"
CONNECTED = ("node1", "node3")


def is_rid(lab: Lab, node: str) -> bool:
    """Whether a node has neither a session with the removed one nor a route to it."""
    sessions = {row["node"] for row in lab.get(node, "sessions")}
    routes = {row["node"] for row in lab.get(node, "routes")}
    return LIAR not in sessions | routes


@pytest.fixture(scope="module")
def lab(make_module_lab: LabMaker) -> Lab:
    # Two lanes each: a lane has keys of its own, which must go as well.
    return make_module_lab(nodes=4, pods=1, settings={"MUSLIN_LANES": "2"})


@pytest.fixture(scope="module")
def removed(lab: Lab) -> Iterator[dict[str, Background]]:
    """Pings from the removed node's pod to all others, which go on whatever happens."""
    lab_kill(lab.name, LIAR, signal.SIGTERM, store=lab.store)
    source = lab[f"{LIAR}-pod1"]
    with ExitStack() as stack:
        mallory = stack.enter_context(Mallory(lab.info))
        eventually(lambda: all(not is_rid(lab, node) for node in lab_nodes(lab)), within=20.0)
        mallory.does("be_deaf")
        pings = {
            node: stack.enter_context(
                background(source.netns, "ping", "-n", "-i0.2", lab[f"{node}-pod1"].address)
            )
            for node in (*CONNECTED, APART)
        }
        for ping in pings.values():
            while "bytes from" not in ping.line(WITHIN):
                pass
        yield pings


def lab_nodes(lab: Lab) -> list[str]:
    return [node.name for node in lab.nodes if node.name != LIAR]


def test_sessions_end_on_each_side_of_a_cut_once_that_side_can_know(
    lab: Lab, removed: dict[str, Background]
) -> None:
    source = lab[f"{LIAR}-pod1"]
    for node in CONNECTED:
        lab.cut(APART, node)

    lab.ask("node1", "remove", name=LIAR, force=True)

    for node in CONNECTED:
        eventually(lambda node=node: is_rid(lab, node), within=WITHIN)
        assert not reaches(source, lab[f"{node}-pod1"].address)
    assert not is_rid(lab, APART), "it cannot know"
    assert is_answered(source, lab[f"{APART}-pod1"].address)

    lab.heal()

    eventually(lambda: is_rid(lab, APART), within=WITHIN)
    assert not reaches(source, lab[f"{APART}-pod1"].address)
    # It may know from node3, and the way to node1 come later.
    near, far = lab["node1-pod1"], lab[f"{APART}-pod1"]
    eventually(lambda: reaches(near, far.address), within=WITHIN)


def test_it_goes_on_calling_and_is_refused_by_everybody(
    lab: Lab, removed: dict[str, Background]
) -> None:
    before = {node: lab.drops(node)["bad_certificate"] for node in lab_nodes(lab)}
    for node, count in before.items():
        eventually(
            lambda node=node, count=count: lab.drops(node)["bad_certificate"] > count + 1,
            within=3 * WITHIN,
        )
        assert is_rid(lab, node)


def test_its_keys_are_not_certified_again_whatever_the_token_and_the_name(
    lab: Lab, removed: dict[str, Background]
) -> None:
    seeds = StateFolder(lab.info.state(LIAR)).read(IDENTITY)
    token = joiner.read_token(lab.ask("node1", "token")["token"], wall=0.0)
    place = lab.info.topology.node(LIAR).netns
    for static in (seeds[32:], os.urandom(32)):
        drawn = iter([seeds[:32], static])
        with pytest.raises(RefusedError) as refused:
            netns.run_in(
                place,
                joiner.join,
                token,
                "another",
                entropy=lambda size, drawn=drawn: next(drawn, None) or os.urandom(size),
            )
        assert refused.value.code == "node-removed"
    with_new_keys = netns.run_in(place, joiner.join, token, "another", entropy=os.urandom)
    assert with_new_keys.certificate.name == "another", "the token itself was good"


def test_an_honest_daemon_with_its_state_is_told_and_does_not_start_again(
    lab: Lab, removed: dict[str, Background]
) -> None:
    """The last: the lying daemon ends here."""
    lab_kill(lab.name, LIAR, signal.SIGTERM, store=lab.store)
    lab_start(lab.name, LIAR, store=lab.store)
    eventually(lambda: "removed" in problems(lab), within=WITHIN)
    lab_kill(lab.name, LIAR, signal.SIGTERM, store=lab.store)
    words = command(lab.info.state(LIAR), "up")
    again = attempt(lab.info.topology.node(LIAR).netns, *words)
    assert (again.returncode, "was removed from its cluster" in again.stderr) == (1, True)


def problems(lab: Lab) -> set[str]:
    return {one["code"] for one in lab.ask(LIAR, "status")["problems"]}
