"""Tests of overlay.handover: all or nothing goes over, once, and what does not is listed.

That nobody notices is proved in `tests.sim.test_upgrades`.
"""

from __future__ import annotations

import random
from hashlib import blake2s

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay import handover as module
from overlay.catalog.keys import node_key
from overlay.config import Settings
from overlay.effects import SetOffload
from overlay.errors import CapacityError, NewerError, RefusedError, StateError, WireError
from overlay.faults import Fault
from overlay.forwarding.path import BASE_PATH_MTU, PeerPath
from overlay.handover import _SECTIONS, VERSION, Spent, inheritance, read
from overlay.routing.trial import Verdict
from overlay.sim import Link, World, udp
from overlay.sim import machine as sim_machine
from overlay.state import NodeState
from overlay.trials import Trials
from overlay.wire.packing import pack, unpack_untrusted
from tests.sim.worlds import carry, settled
from tests.support.engines import engine_of, node_id


def traded(nodes: int = 3, **options: object) -> World:
    """A world in which node1 and node2 exchange packets."""
    world = settled(nodes, **options)
    carry(world, "node1", "node2")
    world.run(world.now + 2.0)
    return world


def handed(world: World, name: str = "node1") -> tuple[bytes, NodeState]:
    """What a node hands over, and what it has stored. It is off afterwards."""
    machine = world[name]
    data = machine.engine.hand_over(world.now)
    machine._engine = None
    return data, machine.stored


def whose(world: World, name: str = "node1") -> tuple[bytes, bytes, str]:
    return node_id(world, name), world.cluster.id, ""


# -- once ------------------------------------------------------------------------------------------


def test_an_engine_that_was_handed_over_does_nothing_more():
    world = traded()
    engine = world["node1"].engine
    outbound, keypair = engine.outbound, engine.parts.paths[node_id(world, "node2")].keypair
    engine.hand_over(world.now)
    for use in (
        lambda: engine.next_deadline(),
        lambda: engine.on_deadline(world.now),
        lambda: engine.on_datagrams(memoryview(b"x" * 40), 0, world["node2"].endpoint, world.now),
        lambda: engine.flush(world.now),
        lambda: engine.on_packet(b"x" * 60, world.now),
        lambda: engine.snapshot(world.now),
        lambda: engine.stop(world.now),
        lambda: engine.add_pod("a", "/run/netns/a", None, world.now),
        lambda: engine.hand_over(world.now),
    ):
        with pytest.raises(StateError):
            use()
    assert not keypair.usable(world.now)
    assert outbound is not engine.outbound


def test_spent_says_what_was_asked_for():
    with pytest.raises(StateError, match="no flush any more"):
        Spent().flush  # noqa: B018


def test_what_waits_in_the_arena_leaves_before():
    world = traded()
    machine = world["node1"]
    ends = [engine_of(world, name).parts.holdings.address for name in ("node1", "node2")]
    outbound = machine.engine.outbound
    for number in range(40):
        packet = bytes(10) + udp(*ends, bytes([number]) * 30_000)
        outbound.room()[: len(packet)] = packet
        outbound.accept(len(packet), world.now)
    before = len(world["node2"].delivered)
    assert outbound.waiting
    assert machine.upgrade()
    world.run(world.now + 1.0)
    assert len(world["node2"].delivered) == before + 40
    assert machine.engine.ledger.queued_packets == 0


def test_packets_that_wait_for_a_session_go_over_and_leave_with_it():
    world = settled(2)
    world.partition(["node1"], ["node2"])
    world.run(world.now + 300.0)  # no keys any more
    carry(world, "node1", "node2")
    engine = engine_of(world, "node1")
    assert engine.ledger.queued_packets == 1
    assert world["node1"].upgrade()
    assert engine_of(world, "node1").ledger.queued_packets == 1
    world.heal()
    before = len(world["node2"].delivered)
    world.run_until(lambda: len(world["node2"].delivered) == before + 1, timeout=10.0)


# -- all or nothing ----------------------------------------------------------------------------


def test_one_that_is_damaged_or_of_another_version_is_refused_as_a_whole():
    world = traded()
    data, state = handed(world)
    assert read(data)
    newer = pack([VERSION + 1, *unpack_untrusted(data, len(data))[1:]])
    with pytest.raises(NewerError):
        read(newer)
    assert inheritance(newer, state, whose(world)) == (
        None,
        "it is of another version of Muslin",
    )
    for at in range(0, len(data), 97):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises(WireError):
            read(bytes(broken))
    assert inheritance(data[:-1], state, whose(world))[0] is None


@settings(max_examples=300)
@given(data=st.binary(max_size=300), at=st.integers(0, 10_000), new=st.integers(0, 255))
def test_whatever_bytes_come_reading_refuses_or_reads(data, at, new):
    for candidate in (data, damaged(at, new)):
        try:
            read(candidate)
        except WireError:
            continue


BODY: list[bytes] = []


def damaged(at: int, new: int) -> bytes:
    """One byte of a section is another, with the right digest: as a defect would have it."""
    if not BODY:
        BODY.append(handed(traded(2))[0])
    body = bytearray(unpack_untrusted(BODY[0], len(BODY[0]))[2])
    body[at % len(body)] = new
    return pack([VERSION, blake2s(bytes(body), digest_size=16).digest(), bytes(body)])


def test_it_is_for_one_node_of_one_cluster_in_one_boot_and_one_start():
    world = traded()
    data, state = handed(world)
    node, cluster, boot_id = whose(world)
    assert inheritance(data, state, (node, cluster, boot_id))[0] is not None
    for other in ((b"x", cluster, boot_id), (node, b"x", boot_id), (node, cluster, "x")):
        sections, why = inheritance(data, state, other)
        assert sections is None
        assert "another" in why
    sections, why = inheritance(data, NodeState(boot=state.boot + 1), whose(world))
    assert sections is None
    assert "start" in why
    assert inheritance(None, state, whose(world)) == (None, "")


def test_what_cannot_be_used_is_a_start_as_after_a_restart_and_says_so():
    world = traded()
    machine = world["node1"]
    data, _ = handed(world)
    machine.start(data[:-1])
    engine = machine.engine
    assert not engine.inherited
    assert engine.parts.record.versions.boot == 2
    assert any(note.event == "handover.refused" for note in world.trace.notes())
    world.run_until(world.settled, timeout=10.0)
    carry(world, "node1", "node2")
    world.run(world.now + 1.0)


@pytest.mark.parametrize("code", ["not-stored", "identity-conflict", "node-left"])
def test_a_node_that_is_not_what_its_state_says_hands_nothing_over_and_goes_on(code):
    world = traded()
    machine = world["node2"]
    match code:
        case "not-stored":
            machine.disk.fail(1 << 30)
            machine.add_pod("a")
        case "identity-conflict":
            image = dict(machine.disk.entries)
            for number in range(2):
                world.restart("node2")
                world.run(world.now + 3.0)
                machine.add_pod(f"pod{number}")
            world.run(world.now + 2.0)
            world.restore("node2", image)
            world.run_until(lambda: machine.engine.conflict.frozen, timeout=10.0)
        case "node-left":
            world.partition(["node2"], ["node1", "node3"])
            machine.leave()
    with pytest.raises(RefusedError) as refused:
        machine.upgrade()
    assert refused.value.code == code
    assert machine.engine.next_deadline() is not None


# -- what goes over ----------------------------------------------------------------------------


def test_the_new_process_shows_what_the_old_one_showed():
    world = traded(4)
    for name in ("node1", "node3"):
        machine = world[name]
        machine.add_pod("web")
        world.run(world.now + 3.0)
        before = machine.snapshot()
        assert machine.upgrade()
        after = machine.snapshot()
        for field in before.__slots__:
            mine, theirs = getattr(before, field), getattr(after, field)
            if field == "routes":  # how old a route is, is as old as the process
                mine, theirs = ([one.prefix for one in each] for each in (mine, theirs))
            assert mine == theirs, field


def test_where_peers_answered_goes_over():
    world = traded()
    machine, far = world["node1"], node_id(world, "node2")
    answered = dict(machine.engine.parts.peering.addresses.answered)
    assert answered[far] == (world["node2"].endpoint,)
    assert machine.upgrade()
    assert machine.engine.parts.peering.addresses.answered == answered


def test_the_version_of_the_record_and_the_boot_number_stay():
    world = traded()
    machine = world["node1"]
    boot, record = machine.stored.boot, machine.own_record()
    for _ in range(5):
        assert machine.upgrade()
        assert machine.own_record() == record
    assert machine.stored.boot == boot
    world.run(world.now + 5.0)
    assert machine.own_record() == record
    world.restart("node1")
    assert machine.stored.boot == boot + 1


def test_what_the_record_does_not_say_yet_is_announced():
    world = traded()
    machine = world["node1"]
    machine.add_pod("one")
    machine.add_pod("two")  # within the pace: it waits
    assert machine.upgrade()
    world.run(world.now + 2.0)
    shown = {pod.name for pod in world["node2"].snapshot().pods}
    assert {"one", "two"} <= shown


def test_another_software_version_is_told_with_one_record(monkeypatch):
    world = traded()
    machine = world["node1"]
    before = machine.own_record()
    data, _ = handed(world)
    make = sim_machine.Engine
    newer = lambda **options: make(**{**options, "version": "simulated 2"})  # noqa: E731
    monkeypatch.setattr(sim_machine, "Engine", newer)
    machine.start(data)
    after = machine.own_record()
    assert after.version == before.version + 1
    world.run(world.now + 3.0)
    assert machine.own_record() == after
    versions = {node.name: node.version for node in world["node2"].snapshot().nodes}
    assert versions["node1"] == "simulated 2"


def test_a_complaint_goes_over_with_its_age():
    world = traded()
    machine = world["node1"]
    book = machine.engine.parts.complaints
    world.inspector.excuse(node_id(world, "node2"))  # it is honest in truth
    book.note(node_id(world, "node2"), Fault.FORGED_CLAIM, world.now - 7.0, "seen")
    world.run(world.now + 2.0)
    entries = dict(machine.engine.parts.complaints.entries)
    record = machine.own_record()
    assert machine.upgrade()
    assert machine.engine.parts.complaints.entries == entries
    assert machine.own_record() == record


def test_items_that_are_not_stored_yet_go_over():
    world = traded()
    machine = world["node1"]
    world["node2"].add_pod("new")
    world.run_until(lambda: bool(machine.engine.parts.store.unstored), timeout=2.0)
    root = machine.engine.parts.store.root()
    unstored = set(machine.engine.parts.store.unstored)
    assert machine.upgrade()
    assert machine.engine.parts.store.root() == root
    world.run(world.now + 3.0)
    stored = {item.key: item for item in machine.stored.items}
    assert all(stored[key] == machine.engine.parts.store.get(key) for key in unstored)


def test_sockets_of_the_new_process_are_told_which_offloads_fail():
    world = traded(settings=Settings(offloads=("udp_gso", "udp_gro", "tso")))
    machine, far = world["node1"], node_id(world, "node2")
    trials = machine.engine.parts.peering.trials
    tried = trials._peers[far]
    tried.trial.verdict, tried.was_segmented, trials._coalesces = Verdict.FAILED, False, False
    before = trials.offloads(far), trials.state(far), trials.is_singly(far)
    told: list[SetOffload] = []
    machine._set_offload = told.append
    assert machine.upgrade()
    trials = machine.engine.parts.peering.trials
    assert (trials.offloads(far), trials.state(far), trials.is_singly(far)) == before
    gso = SetOffload("udp_gso", on=False, endpoint=world["node2"].endpoint)
    assert sorted(told, key=repr) == sorted([gso, SetOffload("udp_gro", on=False)], key=repr)


def test_a_process_without_the_offloads_tries_anew():
    world = traded(settings=Settings(offloads=("udp_gso", "udp_gro")))
    data, state = handed(world)
    sections, _ = inheritance(data, state, whose(world))
    far = node_id(world, "node2")
    for offloads, kept in ((("udp_gso", "udp_gro"), True), (("udp_gro",), False), ((), False)):
        trials = Trials(outbound=None, keypairs={}, settings=Settings(offloads=offloads))
        assert trials.inherit(sections["trials"], {far: PeerPath(far)}) == []
        assert bool(trials.state(far)) is kept


def test_a_burst_that_arrives_half_before_and_half_after_is_whole():
    world = settled(2, link=Link(latency=0.01))
    carry(world, "node1", "node2")
    world.run(world.now + 1.0)
    near, far = engine_of(world, "node1"), engine_of(world, "node2")
    ends = [one.parts.holdings.address for one in (near, far)]
    sent: list[tuple[bytes, int]] = []
    sealer = near.outbound._sealer
    transmit = sealer._transmit
    sealer._transmit = lambda _, data, step: sent.append((bytes(data), step)) or True
    world.send_packet("node1", udp(*ends, bytes(4000)))
    sealer._transmit = transmit
    [(data, step)] = sent
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    random.Random(1).shuffle(pieces)
    before = len(world["node2"].delivered)
    source = world["node1"].endpoint
    for number, piece in enumerate(pieces):
        if number == 2:
            assert world["node2"].engine.ledger.queued_segments == 2
            assert world["node2"].upgrade()
            assert world["node2"].engine.ledger.queued_segments == 2
        world["node2"].receive(piece, 0, source)
    assert len(world["node2"].delivered) == before + 1


# -- at the edges ------------------------------------------------------------------------------


def test_a_handshake_that_was_begun_is_begun_again_at_once():
    for has_packet in (False, True):
        world = settled(4)
        machine, far = world["node2"], node_id(world, "node4")
        peering = machine.engine.parts.peering
        machine.perform(machine.engine.parts.sessions.close(far, world.now, "for a test"))
        world.run(world.now + 0.1)
        assert not machine.engine.parts.sessions.is_connecting(far)
        if has_packet:
            carry(world, "node2", "node4")
        else:
            machine.perform(peering.connect(far, world.now))
        assert machine.engine.parts.sessions.is_connecting(far)
        assert machine.upgrade()
        assert machine.engine.parts.sessions.is_connecting(far), "a new one, of the new process"
        world.run(world.now + 1.0)
        assert machine.engine.parts.sessions.sending_keypair(far, world.now) is not None


def test_a_path_whose_first_packet_left_with_the_hand_over_is_measured():
    world = settled(2)
    machine, far = world["node1"], node_id(world, "node2")
    ends = [engine_of(world, name).parts.holdings.address for name in ("node1", "node2")]
    packet = bytes(10) + udp(*ends, b"first")
    machine.engine.outbound.room()[: len(packet)] = packet
    machine.engine.outbound.accept(len(packet), world.now)
    assert machine.upgrade()
    world.run(world.now + 10.0)
    assert machine.engine.parts.paths[far].path_mtu > BASE_PATH_MTU


def test_of_very_much_that_waits_the_rest_is_lost_and_counted(monkeypatch):
    world = settled(2)
    world.partition(["node1"], ["node2"])
    world.run(world.now + 300.0)  # no keys any more
    carry(world, "node1", "node2")
    ledger = engine_of(world, "node1").ledger
    lost = sum(ledger.view().drops.values())
    monkeypatch.setattr(module, "QUEUED_MOST", 10)
    assert world["node1"].upgrade()
    ledger = engine_of(world, "node1").ledger
    assert ledger.queued_packets == 0
    assert sum(ledger.view().drops.values()) == lost + 1


def test_what_is_over_the_limit_is_not_handed_over_and_the_engine_goes_on(monkeypatch):
    world = traded()
    machine, far = world["node1"], node_id(world, "node2")
    with monkeypatch.context() as patch:
        patch.setattr(module, "LIMIT", 100)
        with pytest.raises(CapacityError, match="too many to hand over"):
            machine.upgrade()
    assert machine.engine.parts.paths[far].keypair.usable(world.now)
    before = len(world["node2"].delivered)
    carry(world, "node1", "node2")
    world.run(world.now + 1.0)
    assert len(world["node2"].delivered) == before + 1


def test_items_that_are_gone_and_still_stored_do_not_come_back():
    world = traded(check=False)
    machine = world["node1"]
    store, key = machine.engine.parts.store, node_key(node_id(world, "node3"))
    store.discard(key)
    assert key in store.unstored
    root = store.root()
    data, state = handed(world)
    assert key in {item.key for item in state.items}
    machine.start(data)
    store = machine.engine.parts.store
    assert store.get(key) is None
    assert store.root() == root
    assert key not in {item.key for item in machine.stored.items}


def test_every_section_is_read_by_the_one_that_takes_over():
    world = traded()
    data, state = handed(world)
    sections, _ = inheritance(data, state, whose(world))
    assert list(sections) == list(_SECTIONS)
