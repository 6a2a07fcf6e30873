"""TCP throughput pod to pod across nodes: Muslin beside no overlay and beside kernel VXLAN.

One lab of two nodes with a pod each. The same two pods, veths, node namespaces and underlay serve
every contestant; only the addresses differ, and with them the way between the nodes:

    muslin   10.244.x.y   TUN, daemon, encrypted UDP
    vxlan    10.98.x.2    kernel VXLAN device, no encryption
    none     10.99.x.2    routed over the underlay, no overlay

Rounds are interleaved (muslin, vxlan, none, muslin, ...), so that a noisy machine hits all alike.
Prints a table of medians and ratios, and with --json everything measured.

Usage: scripts/bench [--rounds 5] [--seconds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from node.control.client import ControlClient
from node.lab.build import lab_down, lab_up
from node.lab.store import LabInfo

NAME = "bench"
CONTESTANTS = ("none", "vxlan", "muslin")
SECOND_OCTET = {"vxlan": 98, "none": 99}
NODES = ("node1", "node2")
PLAIN_MTU = 1500
VXLAN_MTU = 1450


def main() -> int:
    """Measure and print."""
    options = parse()
    try:
        info = lab_up(NAME, 2, 1, progress=lambda step: print(f"   {step}", file=sys.stderr))
        targets = prepare(info)
        rounds = [one_round(info, targets, options.seconds) for _ in range(options.rounds)]
    finally:
        lab_down(NAME)
    show(rounds, options)
    if options.json:
        Path(options.json).write_text(
            json.dumps({"machine": machine(), "rounds": rounds}, indent=1)
        )
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="per measurement (default 3)")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    return parser.parse_args()


def prepare(info: LabInfo) -> dict[str, str]:
    """Give the pods an address per contestant; returns what to aim at from the first pod."""
    underlay = {node.name: str(node.address.ip) for node in info.topology.nodes}
    for here, there in (NODES, NODES[::-1]):
        node = info.topology.node(here)
        pod = node.pods[0].netns
        veth = host_end(node.netns, pod)
        run(node.netns, "ip", "link", "add", "vx0", "type", "vxlan", "id", "98", "dstport", "4789",
            "local", underlay[here], "remote", underlay[there])  # fmt: skip
        # 50 bytes for VXLAN's headers: without this the kernel fragments every outer packet.
        run(node.netns, "ip", "link", "set", "vx0", "up", "mtu", str(VXLAN_MTU))
        run(node.netns, "ip", "addr", "add", f"10.97.0.{here[-1]}/24", "dev", "vx0")
        for contestant, octet in SECOND_OCTET.items():
            own, other = f"10.{octet}.{here[-1]}.2", f"10.{octet}.{there[-1]}.0/24"
            via = f"10.97.0.{there[-1]}" if contestant == "vxlan" else underlay[there]
            run(pod, "ip", "addr", "add", f"{own}/32", "dev", "eth0")
            mtu = str(VXLAN_MTU if contestant == "vxlan" else PLAIN_MTU)
            run(pod, "ip", "route", "add", other, "via", "169.254.1.1", "dev", "eth0", "src", own,
                "mtu", mtu)  # fmt: skip
            run(node.netns, "ip", "route", "add", f"{own}/32", "dev", veth)
            run(node.netns, "ip", "route", "add", other, "via", via)
    client = ControlClient(info.state("node1") / "control.sock")
    pods = {row["name"]: row["address"] for row in client.call("get", kind="pods")}
    return {
        "muslin": pods["node2-pod1"],
        **{name: f"10.{octet}.2.2" for name, octet in SECOND_OCTET.items()},
    }


def host_end(node: str, pod: str) -> str:
    """Name of the host end of a pod's veth."""
    link = json.loads(run(pod, "ip", "-j", "link", "show", "eth0"))[0]
    every = json.loads(run(node, "ip", "-j", "link", "show"))
    return next(each["ifname"] for each in every if each["ifindex"] == link["link_index"])


def one_round(info: LabInfo, targets: dict[str, str], seconds: int) -> dict[str, dict[str, float]]:
    """Every contestant once."""
    result = {name: iperf(info, targets[name], seconds) for name in CONTESTANTS}
    line = "  ".join(f"{name} {figures['gbit']:.2f}" for name, figures in result.items())
    print(f"   Gbit/s: {line}", file=sys.stderr)
    return result


def iperf(info: LabInfo, target: str, seconds: int) -> dict[str, float]:
    """One TCP stream from the first pod to the second; CPU of both daemons meanwhile."""
    source, sink = (info.topology.node(name).pods[0].netns for name in NODES)
    before = daemons_cpu(info)
    with subprocess.Popen(
        [*inside(sink), "iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        while "Server listening" not in server.stdout.readline():
            continue
        out = json.loads(run(source, "iperf3", "-c", target, "-t", str(seconds), "-J"))
        server.stdout.read()
    received = out["end"]["sum_received"]
    cpu = daemons_cpu(info) - before
    gigabytes = received["bytes"] / 1e9
    return {
        "gbit": received["bits_per_second"] / 1e9,
        "cpu_seconds_per_gb": cpu / gigabytes,
        "retransmits": out["end"]["sum_sent"].get("retransmits", 0),
    }


def daemons_cpu(info: LabInfo) -> float:
    """CPU seconds, user and system, that both daemons have used."""
    total = 0.0
    for name in NODES:
        status = ControlClient(info.state(name) / "control.sock").call("status")
        fields = Path(f"/proc/{status['pid']}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def show(rounds: list[dict[str, dict[str, float]]], options: argparse.Namespace) -> None:
    """Medians, spread, ratios."""
    muslin = statistics.median(each["muslin"]["gbit"] for each in rounds)
    print(f"{machine()}; medians of {options.rounds} interleaved rounds of {options.seconds} s")
    print(
        f"{'':10}{'Gbit/s':>8}{'lowest':>8}{'highest':>9}{'muslin / it':>13}{'daemon CPU s/GB':>17}"
    )
    for name in CONTESTANTS:
        rates = sorted(each[name]["gbit"] for each in rounds)
        median = statistics.median(rates)
        cpu = statistics.median(each[name]["cpu_seconds_per_gb"] for each in rounds)
        shown = f"{cpu:.2f}" if name == "muslin" else "-"
        print(
            f"{name:10}{median:8.2f}{rates[0]:8.2f}{rates[-1]:9.2f}"
            f"{muslin / median:13.2f}{shown:>17}"
        )


def machine() -> str:
    """What this was measured on."""
    return f"Linux {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def inside(netns: str) -> list[str]:
    """Prefix of a command that is to run in a namespace."""
    return ["ip", "netns", "exec", netns]


def run(netns: str, *argv: str) -> str:
    """Run a command in a namespace; its output."""
    done = subprocess.run([*inside(netns), *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
