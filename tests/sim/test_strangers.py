"""Proofs: who has no valid certificate of this cluster gets in nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from overlay import joining
from overlay.catalog.records import sign_record
from overlay.config import Limits, Settings
from overlay.effects import SendControl, SendDatagram
from overlay.keys import SigningKey
from overlay.sim import Membership, World
from overlay.sim.world import EPOCH
from overlay.types import Endpoint, NodeId
from overlay.wire.certificate import Certificate, issue_certificate
from overlay.wire.control import encode
from overlay.wire.header import TYPE_INITIATION, TYPE_RESPONSE
from overlay.wire.messages import BlockRequest, JoinRequest
from tests.sim.worlds import blocks_of, settled


def everyone_knows(world: World, name: str) -> list[str]:
    """Other nodes that list `name` as a member."""
    return [
        machine.name
        for machine in world.live()
        if machine.name != name and name in {node.name for node in machine.snapshot().nodes}
    ]


def introduced(world: World, membership: Membership, name: str) -> None:
    """Start a machine that knows everything the founder knows, and let it try for a while."""
    items = world["node1"].stored.items
    world.add_machine(name, membership, items)
    world.run(world.now + 10.0)


def test_a_certificate_of_another_authority_does_not_get_in():
    world, elsewhere = settled(3), World(99)
    foreign = elsewhere.membership("node9").identity
    introduced(world, replace(world.membership("unused"), identity=foreign), "node9")
    assert everyone_knows(world, "node9") == []
    assert world["node9"].snapshot().own_prefixes == ()
    assert world["node1"].snapshot().ledger.drops["bad_certificate"] > 0
    world.crash("node9")
    assert world.converged()
    world.check_invariants()


def test_an_expired_certificate_does_not_get_in():
    world = settled(3)
    membership = world.membership("node9", lifetime=5)
    world.run(world.now + 10.0)
    introduced(world, membership, "node9")
    assert everyone_knows(world, "node9") == []
    assert world["node1"].snapshot().ledger.drops["bad_certificate"] > 0


def test_a_member_whose_certificate_expires_is_a_member_no_longer():
    world = settled(3)
    world.add_node("node4", lifetime=60)
    world.run(world.now + 5.0)
    world.crash("node1")  # which would have renewed it
    assert path_to(world, "node4", seen_by="node2") == "direct"
    # The last keypair was made before the end, and lives 180 s; then nobody starts a handshake.
    world.run(world.now + 60.0 + 180.0)
    assert path_to(world, "node4", seen_by="node2") == "none"
    assert path_to(world, "node4", seen_by="node3") == "none"
    assert "node4" not in {session.node for session in world["node2"].snapshot().sessions}
    assert path_to(world, "node3", seen_by="node2") == "direct"


def test_newcomers_agree_with_others_about_who_left_long_ago():
    world = settled(2)
    world.add_node("node3", lifetime=30)
    world.run(world.now + 5.0)
    world["node3"].leave()
    world.run(world.now + 40.0)  # its certificate has expired, its tombstone is all there is
    world.add_node("node4")
    world.run(world.now + 10.0)
    assert len({machine.engine.parts.store.root() for machine in world.live()}) == 1


def test_a_member_cannot_take_all_blocks():
    world = settled(3)
    greedy, founder = world["node2"], world["node1"].membership.identity.node
    engine = greedy.engine
    for number in range(20):
        ask = [SendControl(founder, encode(BlockRequest(number)))]
        greedy.perform(engine._settle(ask, world.now))
        world.run(world.now + 0.1)
        while engine.parts.holdings.use_a_block():
            pass
        greedy.perform(engine._settle(engine._steward.own_changed(world.now), world.now))
        world.run(world.now + 0.1)
    assert len(blocks_of(world, "node2")) == 1
    world.add_node("node4")
    world.run_until(world.converged, timeout=5.0)


def path_to(world: World, name: str, seen_by: str) -> str:
    return {node.name: node.path for node in world[seen_by].snapshot().nodes}[name]


def test_a_valid_certificate_without_the_clusters_key_does_not_get_in():
    world = settled(3)
    introduced(world, replace(world.membership("node9"), psk=bytes(32)), "node9")
    assert everyone_knows(world, "node9") == []
    # The key is mixed in last, so it is the stranger who first sees that nothing fits.
    assert world["node9"].snapshot().ledger.drops["bad_handshake"] > 0
    assert world["node9"].snapshot().sessions == ()
    assert "node9" not in {session.node for session in world["node1"].snapshot().sessions}


def test_a_strangers_datagrams_get_no_answer_and_change_nothing():
    world = settled(3)
    heard = []
    stranger = Endpoint("198.19.0.1", 1)
    world.underlay.attach("stranger", stranger, lambda *read: heard.append(read))
    shown = {name: world[name].snapshot() for name in world.machines}
    recorded = world.trace.datagrams()
    target = world["node1"].endpoint
    initiations = [one for one in recorded if one[0] == TYPE_INITIATION]
    for datagram in recorded:
        spoilt = bytes([*datagram[:-1], datagram[-1] ^ 1])
        unseen = datagram[:8] + bytes([0, 0, 0, 0, 0, 1]) + datagram[14:]
        unknown = b"\x09" + datagram[1:]
        for attempt in (datagram, spoilt, unseen, datagram[:20], datagram[:7], unknown):
            world.underlay.send("stranger", stranger, target, attempt, 0)
    world.run(world.now + 0.05)
    # A member's initiation that was seen before is told so, for the member's eyes only. Its last
    # bytes are mac2, which nobody looks at while there is no load: the spoilt one counts as well.
    assert len(heard) <= 2 * len(initiations)
    for answer, _, _ in heard:
        assert answer[0] == TYPE_RESPONSE
        assert len(answer) < min(map(len, initiations))
    after = world["node1"].snapshot()
    assert after.routes == shown["node1"].routes
    assert [node.endpoint for node in after.nodes] == [
        node.endpoint for node in shown["node1"].nodes
    ]
    assert after.ledger.drops["unknown_index"] > 0
    assert after.ledger.drops["truncated"] > 0
    assert after.ledger.drops["unknown_type"] > 0
    assert after.ledger.drops["replayed"] > 0
    assert after.ledger.drops["bad_tag"] > 0
    world.check_invariants()


def test_a_member_with_a_key_of_low_order_harms_nobody():
    world = settled(3)
    signing = world.notary.key(bytes(range(32)))
    certificate = issue_certificate(
        world["node1"].membership.authorities[0],
        node=signing.public,
        static=bytes(32),  # the neutral point: every exchange with it gives zero
        name="node9",
        cluster=world.cluster.id,
        serial=9,
        not_before=int(EPOCH),
        not_after=int(EPOCH) + 3600,
    )
    item = sign_record(HalfIdentity(signing, certificate), version=1)
    member = world["node2"]
    publish = member.engine.parts.gossip.publish([item], world.now)
    member.perform(member.engine._settle(publish, world.now))
    world.run(world.now + 3.0)
    world.restart("node3")
    world.run_until(world.converged, timeout=10.0)
    world.check_invariants()


class HalfIdentity(NamedTuple):
    """What signs a record, without the private key that would betray the certificate."""

    signing: SigningKey
    certificate: Certificate

    @property
    def node(self) -> NodeId:
        return self.certificate.node


def test_a_joiner_is_certified_only_for_the_static_key_it_used(monkeypatch):
    """The handshake proved one key; a request that names another gets no certificate."""
    world = settled(2)

    def sign_for_another_key(number, token, signing, static, name):
        other = bytes(32)
        signed = joining.join_signed_bytes(token.id, other, name)
        return JoinRequest(number, name, other, signing.sign(joining.JOIN_CONTEXT, signed))

    monkeypatch.setattr(joining, "_sign_request", sign_for_another_key)
    applicant = world.join("node9")
    world.run(world.now + 10.0)
    assert applicant.failure is not None
    assert applicant.failure.code == "bad-key"
    assert everyone_knows(world, "node9") == []


def test_the_pod_network_is_never_taken_for_an_underlay():
    """A member whose datagrams seem to come from inside the cluster's range gets no session."""
    world = settled(2)
    inside = Endpoint(str(world.cluster.cidr[777]), 6875)
    sessions = world["node2"].engine.parts.sessions
    target = world["node1"].membership.identity.node
    genuine = sessions.renew(target, world["node1"].endpoint, now=world.now)
    sent = [effect.datagram for effect in genuine if isinstance(effect, SendDatagram)]
    engine = world["node1"].engine
    before = engine.snapshot(world.now)
    assert engine.on_datagrams(memoryview(sent[0]), 0, inside, now=world.now) == []
    after = engine.snapshot(world.now)
    assert after.ledger.drops["overlay_source"] == 1
    assert after.sessions == before.sessions


def test_under_load_members_get_in_with_a_cookie_and_each_one_is_counted():
    world = settled(2, settings=Settings(limits=Limits(handshakes_per_second=0)))
    assert world["node1"].snapshot().ledger.drops["under_load"] >= 1
    world.check_invariants()
