"""Tests of a simulated machine: it drives an engine as the daemon does."""

from __future__ import annotations

import pytest

from overlay.conflict import MEETING
from overlay.effects import Persist, Report, SendControl
from overlay.errors import StateError
from overlay.sim import Link, Lost, Machine, Power, World, udp
from overlay.sim.faults import Starvation
from overlay.sim.inbox import SOCKET_BUFFER
from overlay.sim.localtime import Clocks
from overlay.sim.world import EPOCH
from overlay.types import Endpoint, NodeId

SOMEWHERE = Endpoint("198.18.9.9", 1)


def pair() -> tuple[World, Machine, Machine]:
    """Two settled machines."""
    world = World(1)
    other = world.add_node("node2")
    world.run_until(world.converged, timeout=5.0)
    return world, world["node1"], other


def events(world: World, name: str) -> list[str]:
    return [note.event for note in world.trace.notes(node=name)]


def test_effects_are_executed_in_order_and_a_failed_persist_discards_the_rest():
    world, machine, _ = pair()
    one, two = (Persist(((b"names", name),)) for name in (b"one", b"two"))
    three = Persist(((b"tokens", b"three"),))
    machine.perform([Report("first"), one, Report("second")])
    assert machine.stored.names == b"one"
    machine.disk.fail(1, "broken")
    machine.perform([Report("third"), two, Report("fourth"), three])
    assert machine.stored.names == b"one"
    seen = events(world, "node1")
    assert seen[seen.index("first") :] == [
        "first",
        "second",
        "third",
        "disk.failed",
        "state.not-stored",
    ]
    # Both that were not stored are part of what is stored next.
    changes = dict(machine.engine._steward.persist().changes)
    assert {b"names", b"tokens"} <= changes.keys()


def test_an_effect_that_the_engine_should_have_kept_is_a_defect():
    _, machine, _ = pair()
    with pytest.raises(StateError):
        machine.perform([SendControl(NodeId(bytes(32)), b"")])


def test_a_machine_that_is_off_takes_nothing_and_shows_nothing():
    _, machine, _ = pair()
    machine.crash()
    assert machine.receive(b"x", 0, SOMEWHERE) is Lost.DOWN
    assert not machine.live
    with pytest.raises(StateError):
        machine.snapshot()


def test_a_running_machine_is_not_started_twice():
    _, machine, _ = pair()
    with pytest.raises(StateError):
        machine.start()


def test_each_start_counts_as_a_boot_before_anything_is_sent():
    _, machine, _ = pair()
    assert machine.stored.boot == 1
    machine.crash()
    machine.start()
    assert machine.stored.boot == 2


def test_a_loss_of_power_takes_what_was_not_synced_and_a_crash_does_not():
    world, machine, _ = pair()
    machine.disk.fsync = False
    machine.add_pod("kept")
    world.crash("node1")
    machine.disk.fsync = True
    machine.start()
    assert [pod.name for pod in machine.snapshot().pods] == ["kept"]
    world.run(world.now + MEETING)
    boot = machine.stored.boot
    machine.add_pod("synced")
    machine.disk.fsync = False
    machine.add_pod("lost")
    world.power_loss("node1")
    assert [pod.name for pod in machine.stored.pods] == ["kept", "synced"]
    assert world.trace.notes("disk.lost", "node1")
    machine.start()
    assert machine.stored.boot == boot + 1


def test_a_restarted_machine_makes_no_key_twice():
    world, machine, _ = pair()
    world.restart("node2")
    world.restart("node2")
    world.run(world.now + 1.0)
    initiations = [d for d in world.trace.datagrams() if d[0] == 1]
    ephemerals = [d[20:52] for d in initiations]
    assert len(ephemerals) == len(set(ephemerals)) > 2
    assert machine.live


def test_a_paused_machine_reads_what_waited_when_it_goes_on():
    world, machine, other = pair()
    machine.pause()
    received = machine.snapshot().ledger.received
    assert machine.power is Power.PAUSED
    world.run(world.now + 3.0)
    assert machine.snapshot().ledger.received == received
    machine.resume()
    assert machine.snapshot().ledger.received > received
    assert machine.power is Power.RUNNING
    machine.resume()  # nothing more
    assert other.live


def test_the_socket_buffer_of_a_paused_machine_is_bounded():
    _, machine, _ = pair()
    machine.pause()
    room = SOCKET_BUFFER // 1000
    assert [machine.receive(bytes(1000), 0, SOMEWHERE) for _ in range(room)] == [None] * room
    assert machine.receive(bytes(1000), 0, SOMEWHERE) is Lost.FULL


def test_a_stopped_machine_says_goodbye():
    world, machine, other = pair()
    machine.stop()
    assert not machine.live
    world.run(world.now + 0.5)
    paths = {node.name: node.path for node in other.snapshot().nodes}
    assert paths["node1"] == "none"


def test_packets_that_come_out_of_the_tun_are_kept_in_order():
    world, machine, other = pair()
    here, there = machine.add_pod("a"), other.add_pod("b")
    for payload in (b"one", b"two"):
        machine.send_packet(udp(here.address, there.address, payload))
    world.run(world.now + 0.5)
    assert [packet[28:] for packet in other.delivered] == [b"one", b"two"]


def test_a_removed_pod_is_gone():
    _, machine, _ = pair()
    machine.add_pod("a")
    machine.remove_pod("a")
    assert machine.snapshot().pods == ()


def test_probe_answers_are_kept():
    world, machine, other = pair()
    node = other.membership.identity.node
    machine.perform(machine.engine.probe(node, 7, world.now))
    world.run(world.now + 0.5)
    (answer,) = machine.answered
    assert (answer.node, answer.token) == (node, 7)
    assert answer.rtt == pytest.approx(0.02)


def test_a_machine_that_left_is_off_and_says_so():
    world, machine, other = pair()
    other.leave()
    world.run_until(lambda: other.left, timeout=5.0)
    assert other.power is Power.OFF
    assert machine.live


def test_an_engine_whose_deadline_does_not_move_is_found_out():
    world, machine, _ = pair()

    class Stuck:
        def next_deadline(self) -> float:
            return world.now

        def on_deadline(self, now: float) -> list:
            return []

    machine.acted = None  # nothing to judge
    machine._engine = Stuck()
    machine.perform([])
    with pytest.raises(StateError, match="over and over"):
        world.run(world.now + 1.0)


def test_a_link_that_coalesces_gives_the_engine_whole_bursts():
    world = World(1, link=Link(coalesce=True))
    other = world.add_node("node2")
    world.run_until(world.converged, timeout=5.0)
    here, there = world["node1"].add_pod("a"), other.add_pod("b")
    world.send_packet("node1", udp(here.address, there.address, bytes(9000)))
    world.run(world.now + 0.5)
    assert len(other.delivered) == 1


def test_a_machine_that_moved_sends_from_and_reads_at_its_new_address():
    world, machine, other = pair()
    old = other.endpoint
    world.move("node2")
    assert other.endpoint != old
    world.run(world.now + 3.0)
    seen = {node.name: node.endpoint for node in machine.snapshot().nodes}
    assert seen["node2"] == other.endpoint


def test_a_node_that_left_does_not_start_again():
    world, _, other = pair()
    other.leave()
    world.run_until(lambda: other.left, timeout=5.0)
    other.start()
    assert other.left
    assert not other.live
    assert world.trace.notes("machine.refused", "node2")


def test_a_starved_machine_reads_only_in_its_slices():
    world, machine, other = pair()
    web, db = machine.add_pod("web"), other.add_pod("db")
    world.run(world.now + 1.0)
    other.starve(Starvation(share=0.1, period=5.0))
    began = world.now
    machine.send_packet(udp(web.address, db.address, b"hello"))
    world.run(began + 4.8)
    assert other.delivered == []
    assert other.starved
    world.run(began + 5.0)
    assert len(other.delivered) == 1
    other.starve(None)
    machine.send_packet(udp(web.address, db.address, b"again"))
    world.run(world.now + 0.1)
    assert len(other.delivered) == 2


def first_after_a_pause(seed: int) -> str:
    """What an engine sees first when its machine goes on: a timer that is late, or a datagram."""
    world = World(seed)
    world.add_node("node2")
    world.run_until(world.converged, timeout=5.0)
    machine = world["node2"]
    machine.pause()
    world.run(world.now + 3.0)
    order: list[str] = []
    engine = machine.engine
    woken, read = engine.on_deadline, engine.on_datagrams
    engine.on_deadline = lambda now: (order.append("timer"), woken(now))[1]
    engine.on_datagrams = lambda *what: (order.append("read"), read(*what))[1]
    machine.resume()
    return order[0]


def test_late_timers_and_waiting_datagrams_come_in_either_order():
    assert {first_after_a_pause(seed) for seed in range(20)} == {"timer", "read"}


def test_what_follows_a_slow_write_waits_for_it_and_so_does_all_else():
    world, machine, _ = pair()
    machine.disk.latency = 0.5
    began, writes = world.now, machine.disk.writes
    seen = len(events(world, "node1"))
    machine.perform([Report("before"), Persist(((b"names", b"one"),)), Report("after")])
    machine.perform([Report("later")])
    assert machine.receive(b"x", 0, SOMEWHERE) is None
    assert machine.disk.writes == writes
    assert events(world, "node1")[seen:] == ["before"]
    world.run(began + 0.49)
    assert machine.disk.writes == writes
    world.run(began + 0.51)
    assert machine.disk.writes == writes + 1
    assert events(world, "node1")[seen:][:3] == ["before", "after", "later"]


def test_a_slow_write_that_fails_discards_what_followed_it_but_not_what_came_later():
    world, machine, _ = pair()
    machine.disk.latency = 0.5
    machine.disk.fail(1)
    seen = len(events(world, "node1"))
    machine.perform([Persist(((b"names", b"one"),)), Report("after")])
    machine.perform([Report("later")])
    world.run(world.now + 0.6)
    told = events(world, "node1")[seen:]
    assert "later" in told
    assert "after" not in told


def test_a_crash_while_the_disk_writes_keeps_the_old_state():
    world, machine, _ = pair()
    before = machine.disk.image()
    machine.disk.latency = 0.5
    machine.perform([Persist(((b"names", b"one"),))])
    machine.crash()
    world.run(world.now + 5.0)
    assert machine.disk.entries == before


def test_the_engine_is_told_the_machines_own_time_and_works_all_the_same():
    world = World(3)
    world.clocks["node2"] = Clocks(start=5000.0, rate=1.05, skew=30.0)
    other = world.add_node("node2")
    world.run_until(world.converged, timeout=5.0)
    world.run(100.0)
    assert other.snapshot().now == pytest.approx(5105.0)
    assert world.converged()
    other.set_clock(rate=0.9, step=-3600.0)
    world.run(200.0)
    assert other.now == pytest.approx(5195.0)
    assert world.converged()
    since = other.add_pod("web").since
    assert since != pytest.approx(EPOCH + 200.0, abs=20.0)
