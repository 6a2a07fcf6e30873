"""What a member may say that is not so: refused, counted, named; nobody else notices.

Each lie is told by a member with valid keys while packets flow between two others. Where a lie can
be seen as one, whoever is told it says so in its status within five seconds, and all others say
that it does. Nothing but the liar is named, and no packet of the stream is lost.

What cannot be told from what an honest node may say is listed in `UNSEEN`: lies about itself (which
blocks it would use, where it may be reached, what it acknowledges), about the path between it and
who is told, old records again, and its opinion of others' lives and manners. They are harmless, and
that is what is shown of them: no route changes, nobody is taken for dead, no packet is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import count

import pytest

from overlay import allowance
from overlay.catalog.keys import deed_item, node_key
from overlay.catalog.records import (
    RECORD_LIMIT,
    NodeRecord,
    PodEntry,
    pack_record,
    seal_record,
    sign_record,
)
from overlay.catalog.removals import Removal, sign_removal
from overlay.complaints import Complaint
from overlay.drops import DropReason
from overlay.faults import Fault
from overlay.ipam.deeds import sign_base, sign_deed
from overlay.sim import World
from overlay.sim.hostile import NAME, Mask
from overlay.sim.port import Port
from overlay.types import BlockIndex, Endpoint
from overlay.views import NodeState
from overlay.wire.burst import BlockKind, block
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.items import Item
from overlay.wire.messages import (
    BenchDone,
    BenchRequest,
    BlockRequest,
    Claims,
    Have,
    IndirectReply,
    PathProbeReply,
    Probe,
    ProbeReply,
    ReadSingly,
    Refusal,
    SegmentLoss,
    Summary,
    Trial,
    TrialReply,
    Want,
)
from overlay.wire.packing import U64
from tests.sim.insider import BYSTANDER, TOLD, VICTIM, Insider

WITHIN = 5.0
"""Virtual seconds in which a lie is named everywhere."""

Lie = Callable[[Insider], None]


def victims_record(insider: Insider) -> NodeRecord:
    return insider.machine.engine.parts.catalog.nodes[insider.node(VICTIM)]


def masked(insider: Insider, record: NodeRecord) -> Mask:
    own = insider.machine.membership.identity
    return Mask(own.signing, own.static, record.certificate)


def a_newer_record_of_the_victim(insider: Insider) -> None:
    record = victims_record(insider)
    insider.tell(sign_record(masked(insider, record), version=record.version + 1))


def the_tombstone_of_the_victim(insider: Insider) -> None:
    mask = masked(insider, victims_record(insider))
    insider.tell(sign_record(mask, version=U64, left=True))


def endpoints_of_the_victim(insider: Insider) -> None:
    record = victims_record(insider)
    forged = sign_record(
        masked(insider, record),
        version=record.version + (1 << 32),
        endpoints=(Endpoint("203.0.113.9", 9),),
        blocks_in_use=record.blocks_in_use,
    )
    insider.tell(forged)


def an_old_record_of_the_victim_under_a_new_version(insider: Insider) -> None:
    record = victims_record(insider)
    insider.tell(Item(node_key(record.node), record.version + 9, record.body))


def a_record_of_a_node_that_nobody_certified(insider: Insider) -> None:
    own = insider.machine.membership.identity
    forged = replace(own.certificate, name="ghost", signature=bytes(64))
    insider.tell(sign_record(Mask(own.signing, own.static, forged), version=U64 - 1))


def victims_block(insider: Insider) -> BlockIndex:
    return victims_record(insider).blocks_in_use[0]


def a_deed_that_gives_away_the_victims_block(insider: Insider) -> None:
    key = insider.machine.membership.identity.signing
    chain = insider.machine.engine.parts.catalog.titles.chain(victims_block(insider))
    forger = _Forger(key, chain.owner)
    insider.tell(deed_item(sign_deed(forger, chain, key.public, cluster=insider.world.cluster.id)))


class _Forger:
    """Its own key under the name of another."""

    def __init__(self, key: object, public: bytes) -> None:
        self._key, self.public = key, public

    def sign(self, context: str, message: bytes) -> bytes:
        return self._key.sign(context, message)


def a_base_that_makes_the_victims_block_its_own(insider: Insider) -> None:
    own, cluster = insider.machine.membership.identity, insider.world.cluster
    forged = sign_base(
        own.signing, cluster=cluster.id, block=victims_block(insider), sequence=99, owner=own.node
    )
    insider.tell(deed_item(forged))


def a_removal_of_the_victim(insider: Insider) -> None:
    own, record = insider.machine.membership.identity, victims_record(insider)
    removal = Removal(record.node, record.certificate.serial, record.name, 1)
    insider.tell(sign_removal(own.signing, removal, cluster=insider.world.cluster.id))


def a_contradiction_that_the_victim_has_not_made(insider: Insider) -> None:
    record = victims_record(insider)
    claim = Claim(record.node, record.boot, 7, ClaimState.ALIVE, False, bytes(64))
    insider.say(Claims((claim,)))


def a_death_in_an_incarnation_that_never_was(insider: Insider) -> None:
    record = victims_record(insider)
    claim = Claim(record.node, record.boot, 2**32 - 1, ClaimState.DEAD, True, bytes(64))
    insider.say(Claims((claim,)))


def a_record_over_the_limit(insider: Insider) -> None:
    own = insider.machine.membership.identity
    huge = sign_record(own, version=U64 - 1, software="x" * 49_000, limit=60_000)
    insider.tell(huge)


def a_pod_in_a_block_that_its_record_does_not_use(insider: Insider) -> None:
    own, block_ = insider.machine.membership.identity, victims_block(insider)
    insider.tell(sign_record(own, version=U64 - 1, pods=(PodEntry("theirs", block_, 9, 0),)))


def lists_inside_each_other(insider: Insider) -> None:
    insider.say(b"\x91" * 20_000 + b"\x01")


def a_list_that_claims_to_be_longer_than_it_is(insider: Insider) -> None:
    insider.say(b"\xdd\xff\xff\xff\xff" * 2_000)


def no_message_at_all(insider: Insider) -> None:
    insider.say(b"\x93\x01\xc0\xc0")


def a_burst_that_does_not_add_up(insider: Insider) -> None:
    insider.burst(b"\xff\xff\x00abc")


def a_packet_from_the_victims_pod(insider: Insider) -> None:
    insider.packet(insider.pods[VICTIM], insider.pods[TOLD])


def an_ipv6_packet_from_the_victims_node(insider: Insider) -> None:
    victim, told = (insider.world[name].engine.parts.holdings for name in (VICTIM, TOLD))
    assert victim.address6 is not None
    assert told.address6 is not None
    insider.packet(victim.address6, told.address6)


def advertise(insider: Insider, *prefixes: str) -> None:
    """Its own record, properly signed, with outside routes that it has no consent for."""
    parts = insider.machine.engine.parts
    said = parts.catalog.nodes[parts.local]
    content = replace(said, version=said.version + 1, routes=tuple(map(ip_network, prefixes)))
    identity = insider.machine.membership.identity
    item = seal_record(identity, content.version, pack_record(content), limit=RECORD_LIMIT)
    insider.tell(item)


def a_default_route(insider: Insider) -> None:
    advertise(insider, "0.0.0.0/0", "::/0")


def half_a_default_route(insider: Insider) -> None:
    advertise(insider, "128.0.0.0/1")


def the_victims_pods_as_a_network_of_its_own(insider: Insider) -> None:
    advertise(insider, f"{insider.pods[VICTIM]}/32")


def a_network_without_consent(insider: Insider) -> None:
    advertise(insider, "192.168.7.0/24", "2001:db8:7::/48")


def the_underlay_address_of_the_victim(insider: Insider) -> None:
    nodes = insider.machine.engine.parts.catalog.nodes
    advertise(insider, f"{nodes[insider.node(VICTIM)].endpoints[0].host}/32")


LIES: list[tuple[Lie, str]] = [
    (a_newer_record_of_the_victim, "forged-record"),
    (the_tombstone_of_the_victim, "forged-record"),
    (endpoints_of_the_victim, "forged-record"),
    (an_old_record_of_the_victim_under_a_new_version, "malformed-item"),
    (a_record_of_a_node_that_nobody_certified, "forged-certificate"),
    (a_deed_that_gives_away_the_victims_block, "forged-deed"),
    (a_base_that_makes_the_victims_block_its_own, "forged-base"),
    (a_removal_of_the_victim, "forged-removal"),
    (a_contradiction_that_the_victim_has_not_made, "forged-claim"),
    (a_death_in_an_incarnation_that_never_was, "forged-claim"),
    (a_record_over_the_limit, "malformed-item"),
    (a_pod_in_a_block_that_its_record_does_not_use, "malformed-item"),
    (lists_inside_each_other, "malformed-message"),
    (a_list_that_claims_to_be_longer_than_it_is, "malformed-message"),
    (no_message_at_all, "malformed-message"),
    (a_burst_that_does_not_add_up, "malformed-burst"),
    (a_packet_from_the_victims_pod, "foreign-source"),
    (an_ipv6_packet_from_the_victims_node, "foreign-source"),
    (a_default_route, "route-forbidden"),
    (half_a_default_route, "route-forbidden"),
    (the_victims_pods_as_a_network_of_its_own, "route-forbidden"),
    (a_network_without_consent, "route-not-certified"),
    (the_underlay_address_of_the_victim, "route-not-certified"),
]


@pytest.mark.parametrize(("lie", "code"), LIES, ids=[lie.__name__ for lie, _ in LIES])
def test_a_lie_is_refused_and_named_everywhere_and_nobody_else_notices(lie: Lie, code: str) -> None:
    insider = Insider()
    before = insider.world[TOLD].engine.parts.catalog.routes()
    table = {entry.prefix for entry in insider.world[TOLD].engine.parts.routes.entries()}
    lie(insider)
    insider.world.run_until(lambda: insider.is_named(code), timeout=WITHIN)
    insider.world.run(insider.now + WITHIN)
    assert insider.world[TOLD].engine.parts.catalog.routes() == before
    assert {entry.prefix for entry in insider.world[TOLD].engine.parts.routes.entries()} == table
    assert insider.lost() == 0
    assert insider.others_accused() == []
    assert {node.name for node in insider.world[BYSTANDER].snapshot().nodes} >= {VICTIM, NAME}


def test_packets_to_addresses_that_are_elsewhere_are_named_when_they_go_on() -> None:
    insider = Insider()
    elsewhere = ip_address("10.244.200.9")

    def send() -> None:
        insider.packet(insider.pods[NAME], elsewhere)

    insider.world.every(0.2, send)
    insider.world.run_until(lambda: insider.is_named("foreign-destination"), timeout=WITHIN)
    drops = insider.world[TOLD].engine.ledger.drops
    assert drops[DropReason.NOT_OURS] > 5
    assert insider.lost() == 0
    assert insider.others_accused() == []


def test_nothing_of_a_packet_that_is_not_its_senders_is_delivered() -> None:
    insider = Insider()
    packets = [
        insider.packet(insider.pods[VICTIM], insider.pods[TOLD]),
        insider.packet(ip_address("192.0.2.1"), insider.pods[TOLD]),
        insider.packet(insider.pods[NAME], insider.pods[VICTIM]),
    ]
    insider.burst(block(BlockKind.PACKET, b"\x45" + bytes(30)))
    insider.world.run(insider.now + 1.0)
    assert not {*packets} & {*insider.world[TOLD].delivered, *insider.world[VICTIM].delivered}


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


def test_a_jump_of_its_own_version_is_named_and_harms_nobody_else() -> None:
    insider = Insider()
    insider.tell(sign_record(insider.machine.membership.identity, version=U64 - 1))
    insider.world.run_until(lambda: insider.is_named("version-jump"), timeout=WITHIN)
    insider.world[VICTIM].add_pod("later")
    insider.world.run(insider.now + WITHIN)
    assert insider.lost() == 0
    roots = {machine.engine.parts.store.root() for machine in insider.honest()}
    assert len(roots) == 1


# -- what nobody can see as a lie, and what comes of it --------------------------------------------


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


def test_a_block_that_is_signed_over_twice_is_proof_against_its_giver() -> None:
    insider = Insider()
    own, parts = insider.machine.membership.identity, insider.machine.engine.parts
    chain = parts.catalog.titles.chain(parts.holdings.blocks_in_use[0])
    for name in (VICTIM, TOLD):
        taker = insider.node(name)
        deed = sign_deed(own.signing, chain, taker, cluster=insider.world.cluster.id)
        insider.tell(deed_item(deed), to=(name,))
    honest = [machine.name for machine in insider.honest()]

    def proven() -> bool:
        return any(insider.is_named("double-deed", by=name) for name in honest)

    insider.world.run_until(proven, timeout=WITHIN)
    insider.world.run(insider.now + WITHIN)
    assert insider.lost() == 0
    assert insider.others_accused() == []


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
