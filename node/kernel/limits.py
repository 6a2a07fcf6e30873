"""Rates of pods as queues of the kernel: a pure function of the node's snapshot.

    towards the pod    anything --> routes --> veth [bucket] ==> eth0
    from the pod       eth0 ==> veth --(redirected)--> queue link [bucket] --> routes --> anything

The bucket (tbf) is the same in both directions: packets that come faster than the rate wait, and
what would wait too long is dropped, so TCP finds its rate. Packets that a pod sends cannot wait on
the link that they come in by; they take a detour over a link that is nothing but a queue (ifb) and
go on as if they had come in by the veth. All packets of a pod pass here, those between two pods of
one node as well.

Rates count frames, with their Ethernet header: TCP's goodput is 95.6 % of the rate at an MTU of
1500.

- The bucket must hold the largest packet, or the kernel cuts super-packets. It holds one of those
  from 56 Mbit/s on; below, cutting costs nothing worth saving, and 62 KB at once are a long time.
- It holds 2 ms of the rate at least: timers and processors are late, and what they miss is lost.
- It holds one second of the rate at most. Kubernetes asks for 2 Gbit where nobody asked for a
  burst: at 10 Mbit/s that would be no limit for the first 268 MB.
- Up to 50 ms may wait, and eight full packets: enough for TCP over a distance, and short enough to
  talk beside a transfer.

References:
    Linux net/sched/sch_tbf.c; tc-tbf(8), tc-mirred(8), drivers/net/ifb.c.
    CNI conventions, `bandwidth`: bits per second, and bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from node.kernel.model import Limit, Link, queue_name, veth_name
from overlay.attachment import Rate
from overlay.views import LocalView

SUPER_PACKET: Final = 70_000
"""Bytes of the largest packet with the headers of all segments that it will be cut into."""

LEAST_RATE: Final = 1_000
"""Bytes per second. The kernel measures a bucket in time, of which it knows 274 seconds."""

MOST: Final = (1 << 32) - 1
"""Bytes per second, and of a queue: the kernel's fields have 32 bits. 34 Gbit/s."""

_HEADER: Final = 22
"""Bytes around an IP packet in a frame, VLAN tags included."""

_SMOOTH: Final = 100
"""A super-packet is let through at once if it takes no longer than a second divided by this."""

_LATENESS: Final = 500
_WAIT: Final = 20
_WAITING_PACKETS: Final = 8


def desired_limits(snapshot: LocalView, mtu: int) -> Iterator[Limit]:
    """The limits of all local pods.

    Args:
        snapshot: the pods and their rates.
        mtu: what pods see, in bytes.
    """
    for pod in snapshot.pods:
        if not pod.local:
            continue
        veth = veth_name(pod.name)
        for rate, queue in (
            (pod.attachment.ingress, veth),
            (pod.attachment.egress, queue_name(pod.name)),
        ):
            if rate is not None:
                yield limit_of(rate, veth, queue, mtu)


def queue_links(snapshot: LocalView) -> dict[str, Link]:
    """The links that packets from local pods wait at, by name. Each says whose it is."""
    found = ((queue_name(pod.name), pod) for pod in snapshot.pods if pod.local)
    return {name: Link(name, alias=pod.name) for name, pod in found if pod.attachment.egress}


def limit_of(rate: Rate, veth: str, queue: str, mtu: int) -> Limit:
    """What the kernel is told of one rate.

    Args:
        rate: in bits.
        veth: the host end of the pod's veth.
        queue: the link with the bucket: the veth itself for packets towards the pod.
        mtu: what pods see, in bytes.

    >>> limit = limit_of(Rate(100_000_000, 8), "mus0", "mus0", 1500)
    >>> limit.rate, limit.burst, limit.room
    (12500000, 70000, 695000)
    """
    second = min(max(rate.bits // 8, LEAST_RATE), MOST)
    packet = mtu + _HEADER
    least = max(2 * packet, min(SUPER_PACKET, second // _SMOOTH), second // _LATENESS)
    burst = min(max(rate.burst // 8, least), max(second, least), MOST // 2)
    room = min(burst + max(second // _WAIT, _WAITING_PACKETS * packet), MOST)
    return Limit(veth, queue, second, burst, room)
