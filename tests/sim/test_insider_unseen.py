"""What nobody can see as a lie, and what comes of it: nothing to anybody else.

Lies of a member about itself (which blocks it would use, where it may be reached, what it
acknowledges), about the path between it and who is told, old records again, and its opinion of
others' lives and manners. They cannot be told from what an honest node may say, and they are
harmless: no route changes, nobody is taken for dead, no packet is lost.
"""

from __future__ import annotations

import pytest

from overlay.catalog.records import PodEntry, sign_record
from overlay.complaints import Complaint
from overlay.faults import Fault
from overlay.sim.hostile import NAME
from overlay.sim.port import Port
from overlay.types import BlockIndex, Endpoint
from overlay.views import NodeState
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.items import Item
from overlay.wire.messages import (
    BenchDone,
    Claims,
    IndirectReply,
    PathProbeReply,
    ProbeReply,
    ReadSingly,
    Refusal,
    SegmentLoss,
    TrialReply,
)
from tests.sim.insider import BYSTANDER, TOLD, VICTIM, Insider
from tests.sim.test_insider import WITHIN, Lie, victims_block, victims_record


def own_record(insider: Insider, ahead: int = 1, **fields: object) -> Item:
    own = insider.machine.engine.parts.catalog.nodes[insider.node(NAME)]
    identity = insider.machine.membership.identity
    return sign_record(identity, version=own.version + ahead, **fields)


def to_all(insider: Insider, item: Item) -> None:
    insider.tell(item, to=(TOLD, VICTIM, BYSTANDER))


def say_and_go(insider: Insider, item: Item) -> None:
    """Its own record, and no other one behind: the engine of the liar would take it back."""
    to_all(insider, item)
    insider.machine.crash()


def an_old_record_of_the_victim(insider: Insider) -> None:
    old = insider.world[VICTIM].own_record()
    assert old is not None
    insider.world[VICTIM].add_pod("newer")
    insider.world.run(insider.now + 2.0)
    to_all(insider, old)


def that_the_victims_block_is_in_its_use(insider: Insider) -> None:
    mine = insider.machine.engine.parts.holdings.blocks_in_use
    say_and_go(insider, own_record(insider, blocks_in_use=(*mine, victims_block(insider))))


def that_all_blocks_and_all_pods_are_its_own(insider: Insider) -> None:
    blocks = [BlockIndex(number) for number in range(256)]
    pods = [PodEntry(f"pod-{number}", block_, 9, 0) for number, block_ in enumerate(blocks)]
    say_and_go(insider, own_record(insider, blocks_in_use=blocks, pods=pods))


def that_it_gives_blocks_which_it_has_not(insider: Insider) -> None:
    mine = insider.machine.engine.parts.holdings.blocks_in_use
    say_and_go(insider, own_record(insider, blocks_in_use=mine, free_blocks=256))


def that_it_knows_of_removals_there_are_not(insider: Insider) -> None:
    say_and_go(insider, own_record(insider, removals=b"whatever"))


def that_the_victim_is_dead(insider: Insider) -> None:
    record = victims_record(insider)
    for state in (ClaimState.SUSPECT, ClaimState.DEAD):
        said = Claims((Claim(record.node, record.boot, 0, state, True, b""),))
        insider.say(said, TOLD, VICTIM, BYSTANDER)


def that_the_victim_forges(insider: Insider) -> None:
    complaints = [Complaint(insider.node(VICTIM), fault) for fault in list(Fault)[:8]]
    mine = insider.machine.engine.parts.holdings.blocks_in_use
    say_and_go(insider, own_record(insider, blocks_in_use=mine, complaints=complaints))


def about_the_path(insider: Insider) -> None:
    for name in (TOLD, VICTIM, BYSTANDER):
        insider.say(PathProbeReply(65535), name)
        insider.say(SegmentLoss(2**32 - 1), name)
        insider.say(TrialReply(1, 7, coalesced=True), name)
        insider.say(ReadSingly(), name)


def answers_to_what_nobody_asked(insider: Insider) -> None:
    for name in (TOLD, VICTIM, BYSTANDER):
        insider.say(ProbeReply(1), name)
        insider.say(IndirectReply(1, reached=False), name)
        insider.say(Refusal(1, "no-free-block", "none"), name)
        insider.say(BenchDone(1), name)


UNSEEN: list[Lie] = [
    an_old_record_of_the_victim,
    that_the_victims_block_is_in_its_use,
    that_all_blocks_and_all_pods_are_its_own,
    that_it_gives_blocks_which_it_has_not,
    that_it_knows_of_removals_there_are_not,
    that_the_victim_is_dead,
    that_the_victim_forges,
    about_the_path,
    answers_to_what_nobody_asked,
]


@pytest.mark.parametrize("lie", UNSEEN)
def test_a_lie_that_nobody_can_see_harms_nobody(lie: Lie) -> None:
    insider = Insider()
    victim = insider.node(VICTIM)
    before = {
        machine.name: set(machine.engine.parts.catalog.ranges_of(victim))
        for machine in insider.honest()
    }
    began = insider.now
    lie(insider)
    insider.world.run(insider.now + 2 * WITHIN)
    for machine in insider.honest():
        assert set(machine.engine.parts.catalog.ranges_of(victim)) == before[machine.name]
        states = {node.name: node.state for node in machine.snapshot().nodes}
        assert states[VICTIM] is NodeState.READY
    dead = [note for note in insider.world.trace.notes("member.dead") if note.at >= began]
    assert {note.fields["peer"] for note in dead} <= {NAME}, "which may have gone"
    assert insider.lost() == 0
    assert insider.others_accused() == []


def test_what_a_liar_complains_of_is_shown_as_its_word_and_has_no_other_effect() -> None:
    insider = Insider()
    that_the_victim_forges(insider)
    insider.world.run(insider.now + WITHIN)
    shot = insider.world[BYSTANDER].snapshot()
    assert f"{NAME} complains of {VICTIM}: forged-record" in [one.what for one in shot.notices]
    codes = [one.code for one in shot.problems]
    assert not [one for one in codes if one.startswith("member-")], "a word makes nobody unwell"
    assert insider.others_accused() == []
    assert insider.lost() == 0


def test_addresses_of_strangers_in_a_record_bring_them_few_handshakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A liar that names 16 strangers and goes: each honest member tries one after the other."""
    insider = Insider()
    strangers = [Endpoint(f"203.0.113.{number}", 9) for number in range(16)]
    sent: list[int] = []
    send = Port.send

    def counted(port: Port, endpoint: Endpoint, datagram: bytes, step: int) -> object:
        if endpoint in strangers:
            sent.append(len(datagram))
        return send(port, endpoint, datagram, step)

    monkeypatch.setattr(Port, "send", counted)
    say_and_go(insider, own_record(insider, endpoints=strangers))
    insider.world.run(insider.now + 120.0)
    honest = len(list(insider.honest()))
    assert 0 < len(sent) <= 120 * honest, "one initiation per second and member at most"
    assert insider.lost() == 0
