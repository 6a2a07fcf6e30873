"""Rates of pods hold, for packets to them and from them, between pods of one node as well.

    node1 ------ TUN ------ node2
    | pod11 (limited)       | pod21
    | pod12

How exactly they hold is measured by scripts/limits, on a machine that does nothing else. Here a
rate is told from none, which is a thousand times as much, and from one that strangles TCP.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from node.kernel.model import queue_name, veth_name
from overlay.attachment import Attachment, Rate
from overlay.views import PodView, Snapshot
from tests.support import calls
from tests.support.bed import Bed, applied, making_a_bed, run
from tests.support.calls import Call, seen
from tests.support.labs import Place
from tests.support.privileged import NEEDS_KERNEL
from tests.support.rates import measured

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone]

MBIT = 1_000_000
RATE = 20 * MBIT
SECONDS = 2.0
VETH, QUEUE = veth_name("pod11"), queue_name("pod11")


@dataclass
class Scene:
    """Two nodes; a pod of the first is limited in both directions."""

    bed: Bed
    state: Snapshot

    def settle(self) -> None:
        assert applied(self.bed.node1, self.state) == ()


def place(pod: PodView) -> Place:
    return Place(pod.name, pod.node, pod.netns, str(pod.address), str(pod.address6))


@pytest.fixture(scope="module")
def made() -> Iterator[Scene]:
    with making_a_bed() as bed:
        bed.settle()
        limited = Attachment(ingress=Rate(RATE, 8), egress=Rate(RATE, 8))
        pod = replace(bed.pod11, attachment=limited)
        scene = Scene(bed, replace(bed.state1, pods=(pod, bed.pod12)))
        for namespace in (bed.node1, bed.pod11.netns, bed.pod12.netns, bed.pod21.netns):
            run(namespace, "ip", "link", "set", "lo", "up")
        yield scene


@pytest.fixture
def scene(made: Scene) -> Scene:
    made.settle()
    return made


@pytest.mark.parametrize("towards", [True, False], ids=["to the pod", "from the pod"])
@pytest.mark.parametrize("other", ["pod12", "pod21"], ids=["same node", "other node"])
def test_tcp_gets_its_rate_and_no_more(scene: Scene, other: str, towards: bool) -> None:
    limited, free = scene.bed.pod11, getattr(scene.bed, other)
    ends = (free, limited) if towards else (limited, free)
    assert 0.7 * RATE < measured(*ends, SECONDS) < 1.05 * RATE


@pytest.mark.parametrize("towards", [True, False], ids=["to the pod", "from the pod"])
def test_udp_gets_its_rate_and_no_more(scene: Scene, towards: bool) -> None:
    ends = (scene.bed.pod12, scene.bed.pod11)
    arrived = measured(*(ends if towards else ends[::-1]), SECONDS, udp="100M")
    assert 0.7 * RATE < arrived < 1.05 * RATE


def test_other_pods_are_not_limited(scene: Scene) -> None:
    assert measured(scene.bed.pod12, scene.bed.pod21, SECONDS) > 2 * RATE


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", [calls.TCP, calls.UDP], ids=["tcp", "udp"])
def test_who_calls_is_who_he_was(scene: Scene, kind: socket.SocketKind, family: int) -> None:
    """The detour over another link is not seen: not by routes, filters and neighbours either."""
    limited, free = place(scene.bed.pod11), place(scene.bed.pod12)
    for caller, callee in ((limited, free), (free, limited)):
        assert seen(Call(caller, callee.at(family), 7001, kind), callee).host == caller.at(family)


def held(scene: Scene) -> list[str]:
    """The queues of the limited pod, as `tc` shows them, without their counters."""
    shown = (run(scene.bed.node1, "tc", "qdisc", "show", "dev", link) for link in (VETH, QUEUE))
    return [line for text in shown for line in text.splitlines()]


@pytest.mark.parametrize(
    "harm",
    [
        f"tc qdisc del dev {VETH} root",
        f"tc qdisc del dev {VETH} ingress",
        f"tc qdisc change dev {QUEUE} root tbf rate 1gbit burst 1mb limit 9mb",
        f"ip link set {QUEUE} down",
        f"ip link del {QUEUE}",
    ],
)
def test_what_somebody_removes_comes_back(scene: Scene, harm: str) -> None:
    before = held(scene)
    assert sum("tbf" in line for line in before) == 2
    assert run(scene.bed.node1, *harm.split()) == ""
    scene.settle()
    assert held(scene) == before
    pod, other = place(scene.bed.pod11), place(scene.bed.pod12)
    assert seen(Call(pod, other.address, 7001), other).host == pod.address


def test_limits_go_with_their_pod(scene: Scene) -> None:
    assert applied(scene.bed.node1, replace(scene.state, pods=(scene.bed.pod12,))) == ()
    left = run(scene.bed.node1, "ip", "-br", "link")
    assert VETH not in left
    assert QUEUE not in left
