"""What a member may say that is not so: refused, counted, named; nobody else notices.

Each lie is told by a member with valid keys while packets flow between two others. Where a lie can
be seen as one, whoever is told it says so in its status within five seconds, and all others say
that it does. Nothing but the liar is named, and no packet of the stream is lost.

What a member says too often is the affair of `test_insider_floods`; what cannot be told from what
an honest node may say, of `test_insider_unseen`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

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
from overlay.drops import DropReason
from overlay.ipam.deeds import sign_base, sign_deed
from overlay.sim.hostile import NAME, Mask
from overlay.types import BlockIndex, Endpoint
from overlay.wire.burst import BlockKind, block
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.items import Item
from overlay.wire.messages import Claims
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


def test_a_jump_of_its_own_version_is_named_and_harms_nobody_else() -> None:
    insider = Insider()
    insider.tell(sign_record(insider.machine.membership.identity, version=U64 - 1))
    insider.world.run_until(lambda: insider.is_named("version-jump"), timeout=WITHIN)
    insider.world[VICTIM].add_pod("later")
    insider.world.run(insider.now + WITHIN)
    assert insider.lost() == 0
    roots = {machine.engine.parts.store.root() for machine in insider.honest()}
    assert len(roots) == 1


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
