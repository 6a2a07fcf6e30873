"""Tests of overlay.takeover: who is asked at an old address, and how often."""

from __future__ import annotations

from overlay.effects import Effect
from overlay.takeover import ASK_INTERVAL, TAKEOVER_DELAY, Takeovers
from overlay.types import Endpoint, NodeId
from tests.sim.worlds import settled

NODE = NodeId(bytes([1]) * 32)
HERE, THERE = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)


class Asker:
    """Writes down who is asked where."""

    def __init__(self) -> None:
        self.asked: list[tuple[Endpoint, float]] = []

    def ask_at(self, node: NodeId, endpoint: Endpoint, now: float) -> list[Effect]:
        assert node == NODE
        self.asked.append((endpoint, now))
        return []


def test_the_old_address_is_asked_once_after_a_while() -> None:
    asker = Asker()
    takeovers = Takeovers(asker)
    assert takeovers.next_deadline() is None
    takeovers.on_takeover(NODE, HERE, THERE, 10.0)
    assert takeovers.next_deadline() == 10.0 + TAKEOVER_DELAY
    takeovers.on_deadline(10.1)
    assert asker.asked == []
    takeovers.on_deadline(10.0 + TAKEOVER_DELAY)
    takeovers.on_deadline(20.0)
    assert asker.asked == [(HERE, 10.0 + TAKEOVER_DELAY)]
    assert takeovers.next_deadline() is None


def test_the_answer_to_the_question_is_no_takeover() -> None:
    takeovers = Takeovers(Asker())
    takeovers.on_takeover(NODE, HERE, THERE, 10.0)
    takeovers.on_deadline(11.0)
    takeovers.on_takeover(NODE, THERE, HERE, 30.0)
    assert takeovers.next_deadline() is None


def test_machines_that_both_insist_are_asked_about_at_a_low_rate() -> None:
    asker = Asker()
    takeovers = Takeovers(asker)
    for step in range(95):
        now = step / 10
        takeovers.on_takeover(NODE, HERE, THERE, now)
        takeovers.on_deadline(now)
    assert len(asker.asked) == 2
    assert asker.asked[1][1] - asker.asked[0][1] >= ASK_INTERVAL


def test_a_peer_that_is_forgotten_is_not_asked_about() -> None:
    asker = Asker()
    takeovers = Takeovers(asker)
    takeovers.on_takeover(NODE, HERE, THERE, 10.0)
    takeovers.forget(NODE)
    takeovers.on_deadline(60.0)
    assert asker.asked == []


def test_a_node_that_restarts_elsewhere_keeps_its_session_after_the_question() -> None:
    world = settled(2)
    world.crash("node2")
    world.move("node2")
    world.restart("node2")
    world.run(world.now + 10.0)
    path = world["node1"].engine.parts.paths[world["node2"].membership.identity.node]
    assert path.endpoint == world["node2"].endpoint
    assert world.converged()
