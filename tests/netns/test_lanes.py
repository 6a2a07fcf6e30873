"""Lanes on a real kernel: queues, ports and processes; what happens to them, and to the traffic."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.lab.verbs import lab_kill, lab_start
from overlay.types import DEFAULT_PORT
from overlay.wire.header import TYPE_DATA, Header
from tests.support.labs import Lab, LabMaker, Place
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import Background, background, run
from tests.support.traffic import ECHO_PORT, client, opened, ping, serving
from tests.support.waiting import eventually
from tests.support.wiretap import Datagram, Wiretap

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone("netns")]

SOON = 20.0
FLOWS = 32
NEEDS_IPERF3 = pytest.mark.skipif(shutil.which("iperf3") is None, reason="needs iperf3")


def lanes(lab: Lab, node: str) -> list[dict[str, Any]]:
    found = lab.ask(node, "status")["lanes"]
    assert isinstance(found, list)
    return found


def pids(lab: Lab, node: str) -> list[int]:
    return [lane["pid"] for lane in lanes(lab, node)]


def up(lab: Lab, node: str) -> bool:
    return all(lane["state"] == "up" for lane in lanes(lab, node))


def balance(lab: Lab, node: str) -> int:
    ledger = lab.ask(node, "status")["ledger"]
    return int(ledger["in"] - ledger["out"] - ledger["queued"] - sum(ledger["drops"].values()))


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody asked about has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def has_link(place: Place) -> bool:
    return "muslin0" in run(place.netns, "ip", "-o", "link")


def restart_with(lab: Lab, node: str, count: int) -> None:
    """Another number of lanes for one node alone."""
    lab_kill(lab.name, node, signal.SIGTERM, store=lab.store)
    (lab.info.state(node) / "config.toml").write_text(f"lanes = {count}\n")
    lab_start(lab.name, node, store=lab.store)


def many_flows(lab: Lab, size: int = 1 << 16) -> None:
    """Connections between all pods, both ways, each echo intact."""
    near, far = lab.pods
    for source, target in ((near, far), (far, near)):
        with serving(target, "echo", ECHO_PORT):
            answer = client(source, "connections", target.address, ECHO_PORT, FLOWS, size)
        assert (answer["count"], answer["wrong"]) == (FLOWS, 0)


HEADS = 256
"""Bytes of a packet with all headers in them, down to the header of the first segment."""


def data(tap: Wiretap) -> list[tuple[Header, Datagram]]:
    found = [(Header.decode_untrusted(one.payload), one) for one in tap.datagrams]
    return [(header, one) for header, one in found if header.type == TYPE_DATA]


def pairs_used(tap: Wiretap, source: str) -> Counter[tuple[int, int]]:
    """How many datagrams went from which lane of an address to which lane."""
    return Counter(
        (header.lane >> 4, header.lane & 15)
        for header, one in data(tap)
        if one.source.host == source
    )


def test_every_lane_carries_its_share_directly_to_a_lane_of_the_peer(make_lab: LabMaker) -> None:
    lab = make_lab(settings={"MUSLIN_LANES": "2"})
    eventually(lambda: up(lab, "node1") and up(lab, "node2"), within=SOON)
    one = lab.underlay_address("node1")
    many_flows(lab)  # the first packets of a lane may still go by way of lane 0
    with Wiretap(lab.underlay, "node2") as tap:
        eventually(lambda: direct(lab, tap, one), within=SOON)
    for header, datagram in data(tap):
        sender, receiver = header.lane >> 4, header.lane & 15
        assert datagram.destination.port == DEFAULT_PORT + receiver
        # What goes to lane 0 goes from lane 0's port, whichever lane sealed it.
        assert datagram.source.port == DEFAULT_PORT + (sender if receiver else 0)
    for node in ("node1", "node2"):
        assert balance(lab, node) == 0
        assert all(lane["cpu_seconds"] > 0 for lane in lanes(lab, node))
        assert [lane["port"] for lane in lanes(lab, node)] == [DEFAULT_PORT, DEFAULT_PORT + 1]


def direct(lab: Lab, tap: Wiretap, source: str) -> bool:
    many_flows(lab, size=1 << 12)
    used = pairs_used(tap, source)
    return used[0, 0] > FLOWS and used[1, 1] > FLOWS


@NEEDS_IPERF3
def test_nodes_with_different_numbers_of_lanes_understand_each_other(make_lab: LabMaker) -> None:
    lab = make_lab()
    for first, second in ((2, 1), (2, 3), (1, 3), (1, 1)):
        restart_with(lab, "node1", first)
        restart_with(lab, "node2", second)
        assert (len(lanes(lab, "node1")), len(lanes(lab, "node2"))) == (first, second)
        eventually(lambda: up(lab, "node1") and up(lab, "node2"), within=SOON)
        eventually(lambda: ping(lab.pods[0], lab.pods[1].address)[1] == 0.0, within=SOON)
        many_flows(lab)
        with iperf(lab, seconds=1) as said:
            pass
        assert said["bytes"] > 1 << 20
        assert balance(lab, "node1") == balance(lab, "node2") == 0


@contextmanager
def iperf(lab: Lab, seconds: int) -> Iterator[dict[str, int]]:
    """Eight TCP connections for the time of a `with` block and beyond; what came is known after."""
    near, far = lab.pods
    said: dict[str, int] = {}
    words = ["iperf3", "-c", far.address, "-P", "8", "-t", str(seconds), "-J"]
    with background(far.netns, "iperf3", "-s", "-1", "--forceflush") as server:
        assert "---" in server.line(SOON)
        with background(near.netns, *words) as sender:
            yield said
            result = json.loads(sender.rest(seconds + SOON))
    assert "error" not in result, result.get("error")
    said["bytes"] = result["end"]["sum_received"]["bytes"]
    said["slowest"] = min(int(stream["receiver"]["bytes"]) for stream in result["end"]["streams"])
    # Of each second, over all flows.
    said["worst_second"] = min(int(one["sum"]["bytes"]) for one in result["intervals"][:seconds])


@NEEDS_IPERF3
def test_a_killed_worker_is_replaced_and_the_others_do_not_notice(make_lab: LabMaker) -> None:
    lab = make_lab(settings={"MUSLIN_LANES": "3"})
    eventually(lambda: up(lab, "node1") and up(lab, "node2"), within=SOON)
    many_flows(lab)
    before = pids(lab, "node2")
    rekeyed = lab.session("node2", "node1")["rekeyed"]
    with Wiretap(lab.underlay, "node2") as tap:
        many_flows(lab)
        captured = [one for header, one in data(tap) if header.lane & 15 == 1 and not header.last]
        captured = [
            one for one in captured if one.destination.host == lab.underlay_address("node2")
        ]
        assert captured, "nothing went to the lane that is to be killed"
    # Seconds at full speed are gigabytes: of them the heads are enough.
    with Wiretap(lab.underlay, "node2", most=HEADS) as heads:
        os.kill(before[1], signal.SIGKILL)
        with iperf(lab, seconds=8) as said:
            eventually(lambda: up(lab, "node2"), within=SOON)
        many_flows(lab)
    assert said["worst_second"] > 0
    assert said["slowest"] > 1 << 16
    after = pids(lab, "node2")
    assert [was == now for was, now in zip(before, after, strict=True)] == [True, False, True]
    assert [lane["restarts"] for lane in lanes(lab, "node2")] == [0, 1, 0]
    assert lab.session("node2", "node1")["rekeyed"] > rekeyed
    for node in ("node1", "node2"):
        assert balance(lab, node) == 0
    assert_no_nonce_comes_twice(tap, heads)
    assert_refused(lab, captured)


def assert_no_nonce_comes_twice(*taps: Wiretap) -> None:
    """Of each direction: a counter under one key seals one burst, and each segment passes once."""
    seen: Counter[tuple[object, ...]] = Counter()
    for tap in taps:
        found = Counter(
            (one.destination.host, header.receiver, header.lane, header.counter, header.index)
            for header, one in data(tap)
        )
        assert found
        seen += found
    assert [key for key, times in seen.items() if times > 1] == []


def assert_refused(lab: Lab, captured: list[Datagram]) -> None:
    """What was sent to the lane before is nothing to its new process, nor to anybody."""
    before = lab.drops("node2")
    with opened(lab["node1"], socket.SOCK_DGRAM, 4) as sender:
        for one in captured[:50]:
            sender.sendto(one.payload, (one.destination.host, one.destination.port))

    def refused() -> int:
        drops = lab.drops("node2") - before
        return drops["unknown_index"] + drops["replayed"]

    eventually(lambda: refused() >= len(captured[:50]), within=SOON)


@NEEDS_IPERF3
def test_sessions_are_renewed_under_traffic_without_a_gap(make_lab: LabMaker) -> None:
    lab = make_lab()
    # A worker that is replaced makes its node renew all sessions. Node 2 has no lane that would
    # send to this one, so all traffic goes over lanes whose processes stay.
    restart_with(lab, "node1", 3)
    restart_with(lab, "node2", 2)
    eventually(lambda: up(lab, "node1") and up(lab, "node2"), within=SOON)
    eventually(lambda: ping(lab.pods[0], lab.pods[1].address)[1] == 0.0, within=SOON)
    victim = pids(lab, "node1")[2]
    rekeyed = lab.session("node1", "node2")["rekeyed"]
    many_flows(lab)
    near, far = lab.pods
    pings = ["ping", "-n", "-D", "-i0.01", near.address]
    with background(far.netns, *pings) as pinging, iperf(lab, seconds=6) as said:
        answered = answers(pinging, until=time.time())
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda: lab.session("node1", "node2")["rekeyed"] > rekeyed and up(lab, "node1"),
            within=SOON,
        )
        answered |= answers(pinging, until=time.time())
    assert said["worst_second"] > 1 << 20
    # What `ping` itself counts as lost includes those on their way when it was ended.
    lost = set(range(1, max(answered))) - answered
    assert len(lost) <= 3, lost


def answers(pinging: Background, *, until: float) -> set[int]:
    """The numbers of the answers up to this moment, in Unix seconds, and of some after it."""
    numbers: set[int] = set()
    later = 0
    while later < 50:
        found = re.search(r"^\[([0-9.]+)\] .* icmp_seq=([0-9]+) .*time=", pinging.line(SOON))
        if found:
            numbers.add(int(found[2]))
            later += float(found[1]) > until
    return numbers


def test_without_the_other_ports_everything_goes_to_lane_0(make_lab: LabMaker) -> None:
    if shutil.which("nft") is None:
        pytest.skip("needs nft")
    lab = make_lab(settings={"MUSLIN_LANES": "2"})
    node = lab["node2"].netns
    run(node, "nft", "add table inet fw")
    run(node, "nft", "add chain inet fw in { type filter hook input priority 0; }")
    run(node, "nft", f"add rule inet fw in udp dport {DEFAULT_PORT + 1} drop")
    restart_with(lab, "node1", 2)  # what was proven before the firewall is not
    eventually(lambda: up(lab, "node1") and up(lab, "node2"), within=SOON)
    eventually(lambda: ping(lab.pods[0], lab.pods[1].address)[1] == 0.0, within=SOON)
    one = lab.underlay_address("node1")
    with Wiretap(lab.underlay, "node2") as tap:
        eventually(lambda: shared(lab, tap, one), within=SOON)
    probes = [h for h, sent in data(tap) if h.lane == 0x11 and sent.source.host == one]
    assert len(probes) < FLOWS, "packets went where nothing had come through"


def shared(lab: Lab, tap: Wiretap, source: str) -> bool:
    many_flows(lab, size=1 << 12)
    return pairs_used(tap, source)[1, 0] > FLOWS


def test_an_interface_that_somebody_removed_comes_back_with_all_its_queues(
    make_lab: LabMaker,
) -> None:
    lab = make_lab(settings={"MUSLIN_LANES": "2"})
    eventually(lambda: up(lab, "node1") and up(lab, "node2"), within=SOON)
    before = pids(lab, "node1")
    run(lab["node1"].netns, "ip", "link", "del", "muslin0")
    eventually(lambda: ping(lab.pods[0], lab.pods[1].address)[1] == 0.0, within=SOON)
    many_flows(lab)
    assert pids(lab, "node1") == before
    queues = run(lab["node1"].netns, "ip", "-d", "link", "show", "muslin0")
    assert "numqueues 2" in queues or "multi_queue" in queues


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_no_process_is_left_of_a_daemon_that_ended(make_lab: LabMaker, how: signal.Signals) -> None:
    lab = make_lab(settings={"MUSLIN_LANES": "3"})
    eventually(lambda: up(lab, "node1"), within=SOON)
    processes = pids(lab, "node1")
    assert len(set(processes)) == 3
    lab_kill(lab.name, "node1", how, store=lab.store)
    eventually(lambda: all(map(gone, processes)), within=SOON)
    # The interface of one that was killed waits for the next daemon.
    assert has_link(lab["node1"]) is (how == signal.SIGKILL)
    lab_start(lab.name, "node1", store=lab.store)
    eventually(lambda: up(lab, "node1"), within=SOON)
    assert not set(pids(lab, "node1")) & set(processes)


def test_a_worker_that_hears_no_signal_of_the_group_ends_with_its_daemon(
    make_lab: LabMaker,
) -> None:
    lab = make_lab(settings={"MUSLIN_LANES": "2"})
    eventually(lambda: up(lab, "node1"), within=SOON)
    daemon, worker = pids(lab, "node1")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker, number)
    many_flows(lab)
    assert pids(lab, "node1") == [daemon, worker]
    assert lanes(lab, "node1")[1]["restarts"] == 0


def test_a_lane_that_cannot_run_is_a_problem_with_a_name(make_lab: LabMaker) -> None:
    lab = make_lab()
    with opened(lab["node1"], socket.SOCK_DGRAM, 4) as taken:
        taken.bind(("0.0.0.0", DEFAULT_PORT + 1))
        restart_with(lab, "node1", 2)

        def problem() -> dict[str, str]:
            return next(
                (p for p in lab.ask("node1", "status")["problems"] if p["code"] == "lane-ends"), {}
            )

        found = eventually(problem, within=SOON)
        assert f"cannot listen on [::]:{DEFAULT_PORT + 1}" in found["why"]
        many_flows(lab)  # lane 0 carries everything
    eventually(lambda: up(lab, "node1"), within=SOON)
