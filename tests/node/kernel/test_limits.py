from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.kernel.desired import desired_state
from node.kernel.limits import LEAST_RATE, MOST, SUPER_PACKET, desired_limits, limit_of
from node.kernel.model import KernelSettings, Limit, Link, queue_name, veth_name
from overlay.attachment import MAX_RATE, MIN_RATE, Attachment, Rate
from tests.support.views import node_snapshot, pod_view

VETH, QUEUE = veth_name("pod11"), queue_name("pod11")
MBIT = 1_000_000
POD = replace(
    pod_view(1, 1),
    attachment=Attachment(ingress=Rate(10 * MBIT, 8), egress=Rate(100 * MBIT, 8)),
)


def test_each_direction_waits_at_its_own_link() -> None:
    towards, out = desired_limits(node_snapshot(1, (POD,)), 1500)
    assert (towards.link, towards.queue, towards.rate) == (VETH, VETH, 1_250_000)
    assert (out.link, out.queue, out.rate) == (VETH, QUEUE, 12_500_000)
    assert (str(towards), str(out)) == (
        f"limit on {VETH} of what goes to the pod",
        f"limit on {VETH} of what goes from the pod",
    )


def test_pods_without_rates_and_pods_elsewhere_have_none() -> None:
    far = replace(POD, local=False)
    assert list(desired_limits(node_snapshot(1, (pod_view(1, 2), far)), 1500)) == []


def test_the_link_to_wait_at_is_desired_with_the_limit() -> None:
    state = desired_state(node_snapshot(1, (POD, pod_view(1, 2))), KernelSettings("muslin0", 1500))
    assert state.links[QUEUE] == Link(QUEUE, alias="pod11")
    assert queue_name("pod12") not in state.links
    assert len(state.limits) == 2


def limit(bits: int, burst: int = 8, mtu: int = 1500) -> Limit:
    return limit_of(Rate(bits, burst), VETH, VETH, mtu)


@pytest.mark.parametrize(
    ("bits", "burst", "room"),
    [
        (8, 3_044, 15_220),
        (MBIT, 3_044, 15_220),
        (10 * MBIT, 12_500, 75_000),
        (100 * MBIT, SUPER_PACKET, 695_000),
        (1000 * MBIT, 250_000, 6_500_000),
    ],
)
def test_without_a_burst_it_is_what_the_rate_needs(bits: int, burst: int, room: int) -> None:
    found = limit(bits)
    assert (found.burst, found.room) == (burst, room)


def test_a_burst_is_kept_but_for_what_the_rate_needs_and_makes_sense() -> None:
    assert limit(10 * MBIT, 8 * 500_000).burst == 500_000
    assert limit(10 * MBIT, 2**31 - 1).burst == 1_250_000
    assert limit(8, 2**31 - 1).burst == 3_044


@given(st.integers(MIN_RATE, MAX_RATE), st.integers(MIN_RATE, MAX_RATE), st.integers(1280, 65535))
def test_every_rate_fits_into_the_kernels_fields(bits: int, burst: int, mtu: int) -> None:
    found = limit(bits, burst, mtu)
    assert LEAST_RATE <= found.rate <= MOST
    assert mtu < found.burst < found.room <= MOST
    ticks = 1_000_000_000 // 64
    assert found.burst * ticks // found.rate < 1 << 32, "the bucket in time"
