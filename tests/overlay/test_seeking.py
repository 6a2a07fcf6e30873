"""Tests of overlay.seeking."""

from __future__ import annotations

import random
from collections.abc import Callable

from overlay.catalog.catalog import Catalog
from overlay.catalog.records import sign_record
from overlay.config import Limits, Timing
from overlay.effects import Effect, Report, SendControl
from overlay.ipam.plan import BlockPlan
from overlay.seeking import FORGIVE_AFTER, TRIES, BlockSeeker
from overlay.types import NodeId
from overlay.wire.control import decode_untrusted
from overlay.wire.messages import BlockRequest, Refusal
from tests.support.clusters import make_cluster, make_identity

CLUSTER = make_cluster()
RETRY = Timing().request_retry
LOCAL = make_identity(9, CLUSTER).node


def member(number: int) -> NodeId:
    return make_identity(number, CLUSTER).node


def seeker(ready: Callable[[NodeId, float], bool] = lambda *_: True, **free: int) -> BlockSeeker:
    """Of node 9, among members that say they have this many free blocks each."""
    catalog = Catalog(CLUSTER, BlockPlan(CLUSTER), Limits())
    for name, count in free.items():
        identity = make_identity(int(name.removeprefix("node")), CLUSTER)
        catalog.apply(sign_record(identity, version=1 << 32, free_blocks=count))
    return BlockSeeker(catalog, LOCAL, Timing(), random.Random(1), ready)


def asked(effects: list[Effect]) -> tuple[NodeId, int] | None:
    """Whom the effects ask, and the request's number."""
    if not effects:
        return None
    (effect,) = effects
    assert isinstance(effect, SendControl)
    message = decode_untrusted(effect.message)
    assert isinstance(message, BlockRequest)
    return effect.node, message.request


def ask(machine: BlockSeeker, now: float) -> tuple[NodeId, int]:
    """Let the deadline come at `now`; somebody must be asked."""
    assert machine.next_deadline() == now
    found = asked(machine.on_deadline(now))
    assert found is not None
    return found


def test_nothing_is_asked_while_nothing_is_sought() -> None:
    machine = seeker(node1=3)
    assert (machine.seeking, machine.next_deadline(), machine.why) == (False, None, "")
    assert machine.on_deadline(5.0) == []


def test_the_member_with_most_free_blocks_is_asked_at_once() -> None:
    machine = seeker(node1=3, node2=9, node3=1)
    machine.seek(1.0)
    assert machine.seeking
    assert ask(machine, 1.0)[0] == member(2)
    assert "node2" in machine.why


def test_seeking_twice_is_seeking_once() -> None:
    machine = seeker(node1=3)
    machine.seek(1.0)
    first = ask(machine, 1.0)
    machine.seek(1.2)
    assert machine.next_deadline() == 1.0 + RETRY
    assert ask(machine, 1.0 + RETRY)[1] == first[1]


def test_a_lost_request_is_repeated_with_the_same_number() -> None:
    machine = seeker(node1=3)
    machine.seek(0.0)
    assert len({ask(machine, turn * RETRY) for turn in range(20)}) == 1


def test_a_silent_member_does_not_keep_others_from_being_asked() -> None:
    machine = seeker(node1=3, node2=2, node3=0)
    machine.seek(0.0)
    order = [ask(machine, turn * RETRY)[0] for turn in range(4 * TRIES)]
    # Whom to ask: most blocks first; with nobody else left, silence is forgiven at once.
    assert order == ([member(1)] * TRIES + [member(2)] * TRIES) * 2


def test_a_member_that_is_not_heard_is_asked_last_whatever_it_has() -> None:
    machine = seeker(lambda node, now: node != member(1) or now > 60.0, node1=9, node2=2)
    machine.seek(0.0)
    order = [ask(machine, turn * RETRY)[0] for turn in range(2 * TRIES)]
    assert order == [member(2)] * TRIES + [member(1)] * TRIES
    machine.found()
    machine.seek(61.0)
    assert ask(machine, 61.0)[0] == member(1)


def test_a_refusal_because_of_the_asker_is_waited_out_ever_longer_and_all_have_a_turn() -> None:
    machine = seeker(node1=3, node2=2)
    machine.seek(0.0)
    now, waits = 0.0, []
    for turn in range(15):
        node, request = ask(machine, now)
        assert node == member(1 + turn % 2)  # or one that lies would keep it from all blocks
        machine.on_refusal(node, Refusal(request, "has-room", "few pods"), now)
        waits.append(machine.next_deadline() - now)
        now = machine.next_deadline()
    assert waits[:5] == [RETRY, 2 * RETRY, 4 * RETRY, 8 * RETRY, FORGIVE_AFTER]
    assert set(waits[5:]) == {FORGIVE_AFTER}
    machine.found()
    machine.seek(now)
    node, request = ask(machine, now)
    machine.on_refusal(node, Refusal(request, "has-room", "few pods"), now)
    assert machine.next_deadline() == now + RETRY


def test_a_refusal_moves_on_to_the_next_at_once() -> None:
    machine = seeker(node1=3, node2=2)
    machine.seek(0.0)
    node, request = ask(machine, 0.0)
    reports = machine.on_refusal(node, Refusal(request, "no-free-block", "none to spare"), 0.1)
    assert [effect.event for effect in reports if isinstance(effect, Report)] == ["block.refused"]
    assert "none to spare" in machine.why
    assert ask(machine, 0.1) == (member(2), request)


def test_when_all_have_refused_it_waits_and_then_asks_again() -> None:
    machine = seeker(node1=3)
    machine.seek(0.0)
    node, request = ask(machine, 0.0)
    machine.on_refusal(node, Refusal(request, "no-free-block", "none to spare"), 0.0)
    now, turns = 0.0, 0
    while (found := asked(machine.on_deadline(now))) is None:
        assert "none to spare" in machine.why
        now = machine.next_deadline()
        turns += 1
    assert found == (node, request)
    assert FORGIVE_AFTER <= now <= FORGIVE_AFTER + RETRY
    assert turns <= FORGIVE_AFTER / RETRY + 1


def test_a_refusal_of_something_else_changes_nothing() -> None:
    machine = seeker(node1=3)
    machine.seek(0.0)
    node, request = ask(machine, 0.0)
    assert machine.on_refusal(node, Refusal(request ^ 1, "no-free-block", "late"), 0.1) == []
    assert machine.next_deadline() == RETRY
    machine.found()
    assert machine.on_refusal(node, Refusal(request, "no-free-block", "late"), 0.1) == []
    assert not machine.seeking


def test_nobody_is_asked_where_nobody_has_a_block_and_status_says_so() -> None:
    machine = seeker(node1=0)
    machine.seek(0.0)
    assert machine.on_deadline(0.0) == []
    assert machine.why == "no member with free blocks is known"
    assert machine.next_deadline() == RETRY


def test_it_never_asks_itself() -> None:
    machine = seeker(node9=5)
    machine.seek(0.0)
    assert machine.on_deadline(0.0) == []


def test_a_deadline_that_comes_early_does_nothing() -> None:
    machine = seeker(node1=3)
    machine.seek(1.0)
    assert machine.on_deadline(0.5) == []
    ask(machine, 1.0)


def test_found_ends_it_and_forgets_who_refused() -> None:
    machine = seeker(node1=3)
    machine.seek(0.0)
    node, request = ask(machine, 0.0)
    machine.on_refusal(node, Refusal(request, "no-free-block", "none"), 0.0)
    machine.found()
    assert (machine.seeking, machine.next_deadline(), machine.why) == (False, None, "")
    machine.seek(1.0)
    assert ask(machine, 1.0)[0] == node


def test_a_member_whose_record_is_not_known_is_named_by_its_id() -> None:
    machine = seeker(node1=3)
    machine.seek(0.0)
    _, request = ask(machine, 0.0)
    (report,) = machine.on_refusal(member(5), Refusal(request, "no-free-block", "no"), 0.0)
    assert isinstance(report, Report)
    assert report.fields["peer"] == member(5)[:4].hex()
