"""What a member may say too often: cut off, counted, named; nobody else notices.

As in `tests.sim.test_insider`, packets flow between two others meanwhile, and none of them is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from overlay import allowance
from overlay.catalog.records import sign_record
from overlay.drops import DropReason
from overlay.sim import World
from overlay.views import NodeState
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.messages import (
    BenchRequest,
    BlockRequest,
    Claims,
    Have,
    Probe,
    Summary,
    Trial,
    Want,
)
from tests.sim.insider import TOLD, VICTIM, Insider
from tests.sim.test_insider import WITHIN, masked, victims_record


def flood(insider: Insider, say: Callable[[int], None], per_second: int) -> None:
    numbers = count()

    def some() -> None:
        for _ in range(per_second // 20):
            say(next(numbers))

    insider.world.every(0.05, some)


def probes(insider: Insider, number: int) -> None:
    insider.say(Probe(number))


def summaries(insider: Insider, number: int) -> None:
    insider.say(Summary(number.to_bytes(8, "big"), 1, bytes(8)))


def wants_for_everything(insider: Insider, number: int) -> None:
    store = insider.machine.engine.parts.store
    insider.say(Want(b"".join(store.name(item) for item in store.unsorted())))


def questions_for_all_claims(insider: Insider, number: int) -> None:
    insider.say(Claims((), ask=True))


def accusations(insider: Insider, number: int) -> None:
    record = victims_record(insider)
    insider.say(Claims((Claim(record.node, record.boot, 0, ClaimState.DEAD, True, b""),)))


def ids_that_nobody_has(insider: Insider, number: int) -> None:
    insider.say(Have(b"".join((number * 64 + at).to_bytes(8, "big") for at in range(64))))


def requests_for_blocks(insider: Insider, number: int) -> None:
    insider.say(BlockRequest(number + 1))


def requests_to_measure(insider: Insider, number: int) -> None:
    insider.say(BenchRequest(number + 1, bytes(4), b"", 600))


def trials(insider: Insider, number: int) -> None:
    insider.say(Trial(number, 7, b""))


def what_is_no_message(insider: Insider, number: int) -> None:
    insider.say(b"\xc1" * 10)


FLOODS = [
    (probes, 200),
    (summaries, 100),
    (wants_for_everything, 200),
    (questions_for_all_claims, 100),
    (accusations, 100),
    (ids_that_nobody_has, 200),
    (requests_for_blocks, 100),
    (requests_to_measure, 100),
    (trials, 400),
    (what_is_no_message, 400),
]


@pytest.mark.parametrize(("say", "per_second"), FLOODS, ids=[say.__name__ for say, _ in FLOODS])
def test_a_flood_is_cut_off_and_named_everywhere(
    say: Callable[[Insider, int], None], per_second: int
) -> None:
    insider = Insider()
    flood(insider, lambda number: say(insider, number), per_second)
    began = insider.now
    insider.world.run_until(lambda: insider.is_named("gossip-flood"), timeout=2 * WITHIN)
    insider.world.run(began + 20.0)
    assert insider.world[TOLD].engine.ledger.drops[DropReason.FLOODED] > per_second
    assert insider.lost() == 0
    assert insider.others_accused() == []
    states = {node.name: node.state for node in insider.world[TOLD].snapshot().nodes}
    assert states[VICTIM] is NodeState.READY


def test_a_flood_of_records_is_slowed_down_and_named_everywhere() -> None:
    insider = Insider()
    own = insider.machine.membership.identity
    first = 1 << 33

    def write(number: int) -> None:
        insider.tell(sign_record(own, version=first + number), to=(TOLD,))

    flood(insider, write, 100)
    insider.world.run_until(lambda: insider.is_named("record-flood"), timeout=WITHIN)
    insider.world.run(insider.now + 20.0)
    for machine in insider.honest():
        assert machine.engine.parts.store.refused < 20 * 100
    assert insider.lost() == 0
    assert insider.others_accused() == []


def test_a_flood_of_forged_records_costs_few_checks_and_is_named() -> None:
    insider = Insider()
    record = victims_record(insider)
    mask = masked(insider, record)
    first = record.version + 1
    flood(insider, lambda n: insider.tell(sign_record(mask, version=first + n)), 200)
    insider.world.run_until(lambda: insider.is_named("gossip-flood"), timeout=WITHIN)
    began = insider.world[TOLD].engine.parts.store.refused
    insider.world.run(insider.now + 20.0)
    assert insider.world[TOLD].engine.parts.store.refused - began <= 20 * allowance.LIES + 1
    assert "member-forged-record" in insider.codes(TOLD)
    assert insider.lost() == 0


def test_honest_members_are_never_cut_off_however_many_join_or_meet_again() -> None:
    world = World(7, check=False, keep_datagrams=False)
    names = ["node1", *(f"node{number}" for number in range(2, 61))]
    for name in names[1:]:
        world.add_node(name)
    world.run_until(world.converged, timeout=60.0)
    world.partition(names[:30], names[30:])
    world.run(world.now + 15.0)
    world["node2"].pause()
    for number in range(50):
        world["node3"].add_pod(f"pod{number}")
        world.run(world.now + 0.1)
    world.heal()
    world["node2"].resume()
    world.run_until(world.converged, timeout=60.0)
    for machine in world.live():
        assert not machine.engine.parts.complaints.entries
        assert DropReason.FLOODED not in machine.engine.ledger.drops
