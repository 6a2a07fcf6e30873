"""The packet path alone: microseconds per packet, without a kernel, without a socket.

    copy into room() -> accept_run -> flush -> transmit (captured)      out
    on_datagrams -> deliver (counted)                                in

One pass of each case after another, many rounds, and every table size in every round, so that
whatever disturbs the machine disturbs all alike. Medians are what to compare commits by.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from struct import pack
from typing import Final, NamedTuple

from bench.counts import counts
from bench.engines import Cluster, Node
from bench.report import Table, machine, say
from node.errors import NodeError
from overlay.forwarding.outbound import LARGE
from overlay.sim import udp
from overlay.types import Address
from overlay.wire.burst import BLOCK_HEADER_SIZE
from overlay.wire.checksum import checksum, pseudo_header_sum
from overlay.wire.ip import IPV4_HEADER_SIZE, PROTOCOL_TCP, PROTOCOL_UDP
from overlay.wire.transport import TcpFlag
from overlay.wire.virtio import (
    READ_SIZE,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VirtioHeader,
)

DESCRIPTION: Final = "The packet path alone: microseconds per packet, without a kernel."

ROUNDS: Final = 15
ROUTES: Final = "10,1000,10000"
PASSES: Final = 40
"""Of one case in one round."""
RUN: Final = 128
"""Packets in a pass over the TUN when there are many."""

_UDP_CHECKSUM_AT: Final = 6
_TCP_CHECKSUM_AT: Final = 16

SUPER: Final = 62_000
"""Bytes of a super-packet, as the kernel makes them for a link with that limit."""

Pass = Sequence[bytes]
"""The packets of one pass, each behind its virtio_net_hdr."""


@dataclass(frozen=True, slots=True)
class Case:
    """What comes out of the TUN: `passes` makes passes from a cluster, over and over."""

    title: str
    passes: Callable[[Cluster], Iterator[Pass]]


class Cost(NamedTuple):
    """Microseconds per packet of one round."""

    out: float
    into: float


# -- packets ---------------------------------------------------------------------------------------


def partial_udp(source: Address, target: Address, size: int) -> bytes:
    """A UDP packet with `size` bytes of payload, as a pod's kernel gives it: checksum left open."""
    packet = bytearray(udp(source, target, bytes(size)))
    length = len(packet) - IPV4_HEADER_SIZE
    pseudo = pseudo_header_sum(int(source), int(target), PROTOCOL_UDP, length)
    at = IPV4_HEADER_SIZE + _UDP_CHECKSUM_AT
    packet[at : at + 2] = pack(">H", checksum(b"", pseudo) ^ 0xFFFF)
    offload = VirtioHeader(
        VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start=IPV4_HEADER_SIZE, csum_offset=_UDP_CHECKSUM_AT
    )
    return offload.encode() + packet


def tcp_super(source: Address, target: Address, size: int) -> bytes:
    """A TCP super-packet of `size` bytes, as a pod's kernel gives it for pieces of 1460."""
    head = pack(">BBHHHBBH", 0x45, 0, size, 0, 0, 64, PROTOCOL_TCP, 0)
    head += source.packed + target.packed
    head = head[:10] + pack(">H", checksum(head)) + head[12:]
    pseudo = pseudo_header_sum(int(source), int(target), PROTOCOL_TCP, size - len(head))
    open_sum = checksum(b"", pseudo) ^ 0xFFFF
    segment = pack(">HHIIBBHHH", 5201, 5201, 1, 1, 0x50, TcpFlag.ACK, 512, open_sum, 0)
    offload = VirtioHeader(
        VIRTIO_NET_HDR_F_NEEDS_CSUM,
        VIRTIO_NET_HDR_GSO_TCPV4,
        hdr_len=len(head + segment),
        gso_size=1460,
        csum_start=len(head),
        csum_offset=_TCP_CHECKSUM_AT,
    )
    return offload.encode() + (head + segment).ljust(size, b"m")


# -- cases -----------------------------------------------------------------------------------------


def _super(cluster: Cluster) -> Iterator[Pass]:
    one = tcp_super(cluster.nodes[0].address, cluster.nodes[1].address, SUPER)
    return cycle([[one]])


def _run(size: int, count: int) -> Callable[[Cluster], Iterator[Pass]]:
    def passes(cluster: Cluster) -> Iterator[Pass]:
        source, target = cluster.nodes[0].address, cluster.nodes[1].address
        return cycle([[partial_udp(source, target, size)] * count])

    return passes


def _peers(cluster: Cluster) -> Iterator[Pass]:
    """Neighbouring packets go to different nodes."""
    source, *targets = (node.address for node in cluster.nodes)
    mixed = cycle([partial_udp(source, target, 64) for target in targets])
    return cycle([list(islice(mixed, RUN))])


def _cold(cluster: Cluster) -> Iterator[Pass]:
    """Every packet of another flow, more of them than either end remembers."""
    source, target = cluster.nodes[0].address, cluster.nodes[1].address
    flows = cycle(
        partial_udp(source + there, target + here, 64)
        for here in range(1, 200)
        for there in range(1, 100)
    )
    while True:
        yield list(islice(flows, RUN))


CASES: Final = (
    Case("TCP super-packet of 62 KB", _super),
    Case(f"UDP 1300 B, {RUN} in a pass", _run(1300, RUN)),
    Case(f"UDP 64 B, {RUN} in a pass", _run(64, RUN)),
    Case("UDP 64 B, 1 in a pass", _run(64, 1)),
    Case(f"UDP 64 B, {RUN} in a pass, 2 peers in turn", _peers),
    Case(f"UDP 64 B, {RUN} in a pass, all new flows", _cold),
)


# -- measuring -------------------------------------------------------------------------------------


def measure(cluster: Cluster, case: Case, passes: int = PASSES) -> Cost:
    """Send some passes from the first node, then let the others receive them.

    Raises:
        NodeError: a packet was lost on the way. Nothing else.
    """
    sender = cluster.nodes[0]
    work = list(islice(case.passes(cluster), passes))
    packets = sum(map(len, work))
    lost = [node.drops() for node in cluster.nodes]
    # Sent twice: keeping what is sent costs as much as a burst, so the first time nobody does.
    sender.keep = False
    out = _send(sender, work, cluster.now)
    sender.keep = True
    _send(sender, work, cluster.now)
    into = _receive(cluster, sender)
    if [node.drops() for node in cluster.nodes] != lost:
        raise NodeError(f"{case.title}: packets were lost in the packet path")
    return Cost(out / packets * 1e6, into / packets * 1e6)


def _send(sender: Node, work: Sequence[Pass], now: float) -> float:
    engine, outbound = sender.engine, sender.engine.outbound
    started = time.perf_counter()
    for packets in work:
        room, at, sizes = outbound.room(), 0, list[int]()
        for packet in packets:
            # As the driver reads: one behind the other, up to a large one or the end of the room.
            if at + READ_SIZE > len(room) or (sizes and sizes[-1] > LARGE):
                outbound.accept_run(sizes, now)
                room, at, sizes = outbound.room(), 0, []
            room[at : at + len(packet)] = packet
            sizes.append(len(packet))
            at += len(packet) + BLOCK_HEADER_SIZE
        outbound.accept_run(sizes, now)
        engine.flush(now)
    return time.perf_counter() - started


def _receive(cluster: Cluster, sender: Node) -> float:
    places = {node.endpoint: node.engine.on_datagrams for node in cluster.nodes}
    arriving = [
        (places[endpoint], memoryview(datagrams), size)
        for endpoint, datagrams, size in sender.take_sent()
    ]
    source, now = sender.endpoint, cluster.now
    started = time.perf_counter()
    for on_datagrams, datagrams, size in arriving:
        on_datagrams(datagrams, size, source, now)
    return time.perf_counter() - started


def run_cases(
    routes: Sequence[int], rounds: int, progress: Callable[[str], None]
) -> dict[tuple[str, int], Cost]:
    """Medians of every case with every number of routes, all interleaved."""
    clusters = {}
    for count in routes:
        clusters[count] = Cluster(2, count)
        progress(f"{clusters[count].nodes[0].routes()} routes are in the tables")
    seen: dict[tuple[str, int], list[Cost]] = {}
    for number in range(rounds + 1):
        for case in CASES:
            # In turn the first: whoever comes first after another case finds colder caches.
            first = number % len(routes)
            for count in (*routes[first:], *routes[:first]):
                gc.collect()
                cost = measure(clusters[count], case)
                if number:  # the first round warms caches
                    seen.setdefault((case.title, count), []).append(cost)
    return {
        key: Cost(
            statistics.median(cost.out for cost in costs),
            statistics.median(cost.into for cost in costs),
        )
        for key, costs in seen.items()
    }


# -- the command -----------------------------------------------------------------------------------


def add_options(parser: ArgumentParser) -> None:
    """The options of `scripts/bench path`."""
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument(
        "--routes", default=ROUTES, metavar="COUNTS", help=f"in the table (default {ROUTES})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def path(options: Namespace) -> None:
    """Do what the options say.

    Raises:
        NodeError: an option is wrong, or a packet was lost.
    """
    routes = counts(options.routes, "--routes")
    if options.rounds < 1:
        raise NodeError("--rounds must be at least 1")
    costs = run_cases(routes, options.rounds, say)
    on = machine()
    if options.json is not None:
        figures = [
            {"case": title, "routes": count, "out": cost.out, "in": cost.into}
            for (title, count), cost in costs.items()
        ]
        found = {"machine": on, "rounds": options.rounds, "microseconds": figures}
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    table = tabulate(costs, routes)
    print(f"Python {on['python']}, {on['processor']}; medians of {options.rounds} rounds\n")
    print(table.markdown() if options.markdown else table.text())


def tabulate(costs: Mapping[tuple[str, int], Cost], routes: Sequence[int]) -> Table:
    """A row per case, two columns per number of routes."""
    head = ["", *(f"{way}, {count:,} routes" for count in routes for way in ("out", "in"))]
    rows = [
        [title, *(f"{value:.2f}" for count in routes for value in costs[title, count])]
        for title in dict.fromkeys(title for title, _ in costs)
    ]
    return Table("Packet path alone: microseconds per packet", head, rows)
