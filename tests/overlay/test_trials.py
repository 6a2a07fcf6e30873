"""Tests of overlay.trials: offloads between the nodes of a simulated world."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from overlay.config import Settings, Timing
from overlay.effects import Effect, Report, SendControl, SetOffload
from overlay.forwarding.path import PeerPath
from overlay.knowledge import FAREWELL
from overlay.sim import Link, Lost, World, udp
from overlay.sim.link import cut
from overlay.trials import ALONE, SINGLY_FOR
from overlay.types import Endpoint, NodeId
from overlay.wire.control import decode_untrusted
from overlay.wire.messages import ReadSingly, SegmentLoss, TrialReply
from overlay.wire.messages import Trial as TrialMessage
from tests.sim.worlds import settled

ALL = ("udp_gso", "udp_gro", "checksum", "tso", "uso")
TIMING = Timing()
ELSEWHERE = Endpoint("203.0.113.9", 999)
COALESCED = Link(coalesce=True)


def with_offloads(*names: str, link: Link | None = None) -> World:
    """Two nodes that have these offloads, and have had time for their trials."""
    world = settled(2, link=link or COALESCED, settings=Settings(offloads=names))
    world.run(world.now + 3.0)
    return world


def node_id(world: World, name: str) -> NodeId:
    return world[name].membership.identity.node


def session(world: World, name: str = "node1"):
    (view,) = world[name].snapshot().sessions
    return view


@dataclass
class Kernel:
    """A kernel under node1's socket that does something to segmented sends.

    Attributes:
        drops: whether it loses them; otherwise it flips a byte in each.
        broken: whether it does it at all.
        sends: segments of each send, in order.
    """

    world: World
    drops: bool = False
    broken: bool = True
    sends: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._send = self.world.underlay.send
        self.world.underlay.send = self.send

    def send(
        self, name: str, source: Endpoint, destination: Endpoint, burst: bytes, segment_size: int
    ) -> None:
        if name == "node1":
            self.sends.append(len(cut(burst, segment_size)))
            if self.broken and self.sends[-1] > 1:
                if self.drops:
                    return
                burst = burst[:-1] + bytes([burst[-1] ^ 1])
        self._send(name, source, destination, burst, segment_size)


def broken_world(*, drops: bool = False) -> tuple[World, Kernel]:
    """node1 starts again on a kernel that segments wrongly."""
    world = with_offloads(*ALL)
    world.crash("node1")
    kernel = Kernel(world, drops)
    world.restart("node1")
    world.run(world.now + 0.5)
    return world, kernel


def test_two_healthy_nodes_use_everything() -> None:
    world = with_offloads(*ALL)
    for name in ("node1", "node2"):
        assert session(world, name).offloads == ALL
        assert session(world, name).trial == "coalesced"
        assert dict(world[name].snapshot().ledger.drops) == {}


def test_a_far_end_that_reads_in_pieces_says_so() -> None:
    world = with_offloads(*ALL, link=Link(coalesce=False))
    assert session(world).trial == "proven"
    assert session(world).offloads == ALL


def test_what_the_far_end_cannot_take_is_not_shown() -> None:
    world = with_offloads(*ALL)
    trials = world["node1"].engine.parts.peering.trials
    trials.on_trial(node_id(world, "node2"), TrialMessage(1, 1 | 64, b""), whole=True)
    assert session(world).offloads == ("udp_gso", "udp_gro", "checksum")


def test_nodes_without_segmentation_tell_each_other_what_they_take_in_small_messages() -> None:
    world = with_offloads("checksum", "tso")
    assert session(world).offloads == ("checksum", "tso")


def test_nodes_without_any_offload_try_nothing() -> None:
    world = settled(2)
    world.run(world.now + 3.0)
    assert (session(world).trial, session(world).offloads) == ("", ())


@pytest.mark.parametrize("drops", [False, True], ids=["flips bytes", "drops"])
def test_a_kernel_that_segments_wrongly_costs_seconds_and_then_nothing_but_speed(
    drops: bool,
) -> None:
    world, kernel = broken_world(drops=drops)
    world.run(world.now + 3.0)
    assert "udp_gso" not in session(world).offloads
    assert session(world).trial == "failed"
    (note,) = world.trace.notes("offload.failed", "node1")
    assert note.fields["offloads"] == "udp_gso"
    web, db = world["node1"].add_pod("web"), world["node2"].add_pod("db")
    world.run(world.now + 3.0)
    kernel.sends.clear()
    delivered = len(world["node2"].delivered)
    payloads = [bytes([number]) * 9000 for number in range(20)]
    for payload in payloads:
        world.send_packet("node1", udp(web.address, db.address, payload))
    world.run(world.now + 1.0)
    arrived = world["node2"].delivered[delivered:]
    assert [packet[-9000:] for packet in arrived] == payloads
    assert set(kernel.sends) == {1}
    # The other direction has a kernel of its own.
    assert "udp_gso" in session(world, "node2").offloads


def test_a_kernel_that_is_mended_is_found_out_and_data_is_never_risked_for_it() -> None:
    world, kernel = broken_world()
    world.run(world.now + 3.0)
    world.run(world.now + TIMING.path_confirm_interval)
    assert "udp_gso" not in session(world).offloads
    kernel.broken = False
    world.run(world.now + TIMING.path_confirm_interval + 3.0)
    assert "udp_gso" in session(world).offloads
    switched = [note.fields["on"] for note in world.trace.notes("offload.set", "node1")]
    assert switched[0] == 0
    assert switched[-1] == 1


def test_a_rekey_is_no_reason_to_try_again_and_a_new_session_is() -> None:
    world = settled(2, link=COALESCED, settings=Settings(offloads=ALL, timing=Timing.quick()))
    world.run(world.now + 3.0)
    kernel = Kernel(world, broken=False)
    rekeyed = session(world).rekeyed
    world.run(world.now + 30.0)
    assert session(world).rekeyed > rekeyed
    assert max(kernel.sends) == 1
    world.crash("node2")
    world.run(world.now + 60.0)
    assert not world["node1"].snapshot().sessions
    world.restart("node2")
    world.run(world.now + 10.0)
    assert max(kernel.sends) > 30


def test_another_endpoint_is_tried_anew_and_the_old_one_is_no_longer_spared() -> None:
    world, kernel = broken_world()
    world.run(world.now + 3.0)
    old = world["node2"].endpoint
    kernel.broken = False
    world["node2"].move(ELSEWHERE)
    world.run(world.now + 3.0)
    assert "udp_gso" in session(world).offloads
    assert session(world).trial == "coalesced"
    assert world["node1"].port.singly == set()
    assert session(world).endpoint != old


# -- receive offload -------------------------------------------------------------------------------


def plea(world: World) -> list[Effect]:
    return world["node2"].engine.parts.peering.trials.on_read_singly(
        node_id(world, "node1"), world.now
    )


def test_receive_offload_ends_on_request_when_bursts_did_not_verify_and_only_then() -> None:
    world = with_offloads(*ALL)
    assert plea(world) == [], "a request alone is no reason"
    keypair = world["node2"].engine.parts.paths[node_id(world, "node1")].keypair
    assert keypair is not None
    keypair.bad_tags = 2
    off, report = plea(world)
    assert off == SetOffload("udp_gro", on=False)
    assert isinstance(report, Report)
    assert report.fields["offloads"] == "udp_gro"
    assert "udp_gro" not in session(world, "node2").offloads
    assert plea(world) == [], "once"


def test_one_peer_of_several_is_heard_three_times_and_for_a_minute_each() -> None:
    world = with_offloads(*ALL)
    for name in ("node3", "node4"):
        world.add_node(name)
    world.run_until(world.converged, timeout=20.0)
    world.run(world.now + 3.0)
    trials = world["node2"].engine.parts.peering.trials
    for name in ("node1", "node3"):
        keypair = world["node2"].engine.parts.paths[node_id(world, name)].keypair
        assert keypair is not None
        keypair.bad_tags = 2
    for _ in range(ALONE):
        assert plea(world)[0] == SetOffload("udp_gro", on=False)
        assert plea(world) == [], "once"
        back_at = world.now + SINGLY_FOR
        assert SetOffload("udp_gro", on=True) not in trials.on_deadline(back_at - 1.0)
        assert SetOffload("udp_gro", on=True) in trials.on_deadline(back_at)
    assert plea(world) == []
    off = trials.on_read_singly(node_id(world, "node3"), world.now)
    assert off[0] == SetOffload("udp_gro", on=False), "two of three say so"
    assert SetOffload("udp_gro", on=True) not in trials.on_deadline(world.now + 10 * SINGLY_FOR)


def test_a_far_end_that_joins_wrongly_is_asked_and_does_without() -> None:
    world = with_offloads(*ALL)
    machine, joined = world["node2"], []
    receive = machine.receive

    def joined_wrongly(buffer: bytes, segment_size: int, source: Endpoint) -> Lost | None:
        # Datagrams sent one by one are joined as well when they come close together.
        views = machine.snapshot().sessions
        if len(buffer) > 1200 and (not views or "udp_gro" in views[0].offloads):
            joined.append(len(buffer))
            buffer = buffer[:-1] + bytes([buffer[-1] ^ 1])
        return receive(buffer, segment_size, source)

    world.underlay.attach("node2", machine.endpoint, joined_wrongly)
    world.crash("node1")
    world.restart("node1")
    world.run(world.now + 6.0)
    assert joined, "nothing was joined: it proves nothing"
    assert "udp_gro" not in session(world, "node2").offloads
    assert "udp_gso" in session(world).offloads
    assert session(world).trial == "coalesced"


# -- messages --------------------------------------------------------------------------------------


def test_a_trial_is_answered_with_its_number_and_how_it_came() -> None:
    world = with_offloads("udp_gso", "checksum", "uso")
    trials = world["node1"].engine.parts.peering.trials
    (answer,) = trials.on_trial(node_id(world, "node2"), TrialMessage(9, 0, b"x"), whole=False)
    assert isinstance(answer, SendControl)
    assert decode_untrusted(answer.message) == TrialReply(9, 1 | 4, coalesced=False)


def test_messages_of_strangers_change_nothing() -> None:
    world = with_offloads(*ALL)
    peering, stranger = world["node1"].engine.parts.peering, NodeId(b"s" * 32)
    for message in (TrialReply(1, 7, coalesced=True), ReadSingly(), SegmentLoss(3)):
        assert peering.on_message(stranger, message, True, world.now) == []
    assert peering.trials.offloads(stranger) == ("udp_gso", "udp_gro")
    assert peering.trials.state(stranger) == ""


def test_a_peer_that_is_forgotten_leaves_nothing_to_do() -> None:
    world = with_offloads(*ALL)
    trials = world["node1"].engine.parts.peering.trials
    path = PeerPath(NodeId(b"n" * 32))
    assert trials.on_session(path, world.now) == [], "no endpoint yet"
    path.use(ELSEWHERE, 1280)
    trials.on_session(path, world.now)
    assert trials.next_deadline() == world.now + TIMING.path_probe_retry
    trials.forget(path.node)
    trials.on_deadline(world.now + 100.0)
    assert trials.next_deadline() is None


def test_the_address_of_a_peer_that_is_forgotten_is_no_longer_spared() -> None:
    world, _ = broken_world()
    world.run(world.now + 3.0)
    machine, endpoint = world["node1"], world["node2"].endpoint
    assert machine.port.singly == {endpoint}
    world["node2"].leave()
    world.run(world.now + FAREWELL + 5.0)
    assert node_id(world, "node2") not in machine.engine.parts.paths
    assert machine.port.singly == set()


def test_a_peer_that_was_sent_segmented_bursts_is_forgotten_without_a_word() -> None:
    world = with_offloads(*ALL)
    trials = world["node1"].engine.parts.peering.trials
    assert trials.forget(node_id(world, "node2")) == []
    assert trials.forget(node_id(world, "node2")) == []
