"""What members say to daemons becomes effects, and nothing else does."""

from __future__ import annotations

import pytest

from overlay.effects import BenchAnswered, BenchAsked, BenchEnded, Effect, FactsAsked, FactsTold
from overlay.talk import talk_effects
from overlay.types import NodeId
from overlay.wire.control import encode
from overlay.wire.messages import (
    FACTS_LIMIT,
    BenchDone,
    BenchReady,
    BenchRequest,
    Facts,
    FactsRequest,
    Goodbye,
    Message,
    Probe,
    Refusal,
)
from tests.sim.worlds import settled

NODE = NodeId(bytes(32))
HERE = bytes([10, 244, 0, 1])
BESIDE = bytes([192, 0, 2, 1])


@pytest.mark.parametrize(
    ("message", "effect"),
    [
        (BenchRequest(5, HERE, BESIDE, 30), BenchAsked(NODE, 5, HERE, BESIDE, 30)),
        (BenchReady(5, b"t" * 32, 1, 2), BenchAnswered(NODE, 5, b"t" * 32, 1, 2)),
        (
            Refusal(5, "bench-busy", "it is"),
            BenchAnswered(NODE, 5, code="bench-busy", text="it is"),
        ),
        (BenchDone(5), BenchEnded(NODE, 5)),
        (FactsRequest(7), FactsAsked(NODE, 7)),
        (Facts(7, "{}"), FactsTold(NODE, 7, "{}")),
    ],
)
def test_each_message_is_one_effect_that_names_the_sender(message: Message, effect: Effect) -> None:
    assert talk_effects(NODE, message) == [effect]


@pytest.mark.parametrize("message", [Probe(1), Goodbye()])
def test_other_messages_are_left_to_others(message: Message) -> None:
    assert talk_effects(NODE, message) is None


def test_a_refusal_of_something_else_is_heard_and_means_nothing() -> None:
    assert talk_effects(NODE, Refusal(5, "no-block", "all in use")) == []


def test_the_token_is_not_shown() -> None:
    assert "ttt" not in repr(BenchAnswered(NODE, 1, b"t" * 32))


def test_a_request_and_its_answers_travel_inside_the_session() -> None:
    world = settled(2)
    one, two = world["node1"], world["node2"]
    ids = {each.name: each.membership.identity.node for each in (one, two)}

    def say(speaker, listener, message: Message) -> list[Effect]:
        before = len(listener.asked)
        speaker.perform(speaker.engine.say(ids[listener.name], encode(message), world.now))
        world.run(world.now + 1.0)
        return listener.asked[before:]

    asked = say(one, two, BenchRequest(5, HERE, b"", 30))
    assert asked == [BenchAsked(ids["node1"], 5, HERE, b"", 30)]
    ready = say(two, one, BenchReady(5, bytes(32), 1, 0))
    assert ready == [BenchAnswered(ids["node2"], 5, bytes(32), 1, 0)]
    refused = say(two, one, Refusal(5, "bench-busy", "it is"))
    assert refused == [BenchAnswered(ids["node2"], 5, code="bench-busy", text="it is")]
    assert say(one, two, BenchDone(5)) == [BenchEnded(ids["node1"], 5)]
    assert two.snapshot().ledger.drops.get("bad_control", 0) == 0


def test_a_question_and_the_longest_answer_travel_inside_the_session() -> None:
    world = settled(2)
    one, two = world["node1"], world["node2"]
    ids = {each.name: each.membership.identity.node for each in (one, two)}
    text = "x" * FACTS_LIMIT
    one.perform(one.engine.say(ids["node2"], encode(FactsRequest(7)), world.now))
    world.run_until(lambda: FactsAsked(ids["node1"], 7) in two.asked, timeout=2.0)
    two.perform(two.engine.say(ids["node1"], encode(Facts(7, text)), world.now))
    world.run_until(lambda: FactsTold(ids["node2"], 7, text) in one.asked, timeout=2.0)
