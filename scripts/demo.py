"""The main job on real namespaces: what scripts/demo runs once everything is installed.

lab up --> tables --> ping matrix, IPv4 and IPv6 --> 256 MB between pods --> lab down
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address

from node.control.client import ControlClient
from node.errors import clauses
from node.lab.build import lab_down, lab_up
from node.lab.store import LabInfo
from overlay.errors import OverlayError

NAME = "demo"
NODES = 3
PODS = 2
COPY_SIZE = 256 << 20
PORT = 5001
PYTHON = sys.executable

GREEN, RED, PLAIN = ("\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


@dataclass(frozen=True)
class Place:
    """Something that pings, or is pinged."""

    name: str
    netns: str
    address: str
    address6: str


def main() -> int:
    """Run the demonstration; 0 if everything went as it should."""
    if len(sys.argv) > 1:
        print("demo: scripts/demo takes no arguments", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave nothing behind then, either
    try:
        return 0 if demonstrate() else 1
    except OverlayError as error:
        _, why, fix = clauses(error)
        print(f"demo: {why}: {fix}" if fix else f"demo: {why}", file=sys.stderr)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
    return 1


def demonstrate() -> bool:
    """Build the lab, show it, take it down; whether all was as it should be."""
    started = time.monotonic()
    say(f"{NODES} nodes with {PODS} pods each, in network namespaces of this machine")
    info = lab_up(NAME, NODES, PODS, progress=lambda step: print(f"   {step}", file=sys.stderr))
    try:
        return show(info)
    finally:
        lab_down(NAME)
        say(f"all namespaces and daemons are gone again, after {time.monotonic() - started:.0f} s")


def show(info: LabInfo) -> bool:
    """Tables, pings, a transfer."""
    first = info.topology.nodes[0].name
    say("what node1 knows of the others: muslin get nodes -o wide")
    muslin(info, first, "get", "nodes", "-o", "wide")
    say("and of all pods: muslin get pods")
    muslin(info, first, "get", "pods")
    nodes, pods = places(info)
    good = True
    for family in (4, 6):
        say(f"every pod from every node and every pod, IPv{family}: milliseconds")
        good &= matrix([*nodes, *pods], pods, family)
    say(f"{COPY_SIZE >> 20} MB over TCP from {pods[0].name} to {pods[-1].name}")
    return copy(pods[0], pods[-1]) and good


def muslin(info: LabInfo, node: str, *argv: str) -> None:
    """Run a command as an operator of `node` would."""
    command = [PYTHON, "-m", "node", "--state", str(info.state(node)), *argv]
    subprocess.run(command, check=True)


def places(info: LabInfo) -> tuple[list[Place], list[Place]]:
    """All nodes and all pods, with the addresses the cluster gave them."""
    client = ControlClient(info.state(info.topology.nodes[0].name) / "control.sock")
    netns = {place.name: place.netns for place in (*info.topology.nodes, *info.topology.pods)}
    known = [
        [
            Place(row["name"], netns[row["name"]], row["address"], row["address6"])
            for row in client.call("get", kind=kind)
        ]
        for kind in ("nodes", "pods")
    ]
    return known[0], known[1]


def matrix(sources: list[Place], targets: list[Place], family: int) -> bool:
    """Ping every target from every source, all at once, and print what came back."""
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda source: ping_all(source, targets, family), sources))
    width = max(len(place.name) for place in (*sources, *targets))
    print(" " * width, *(f"{target.name:>{width}}" for target in targets))
    for source, row in zip(sources, rows, strict=True):
        cells = (cell(rtt, width) for rtt in row)
        print(f"{source.name:<{width}}", *cells)
    answered = sum(rtt is not None for row in rows for rtt in row)
    asked = len(sources) * len(targets)
    print(f"{answered} of {asked} answered")
    return answered == asked


def cell(rtt: float | None, width: int) -> str:
    """One entry of the matrix: green or red on a terminal, readable without colours."""
    text = "none" if rtt is None else f"{rtt:.2f}"
    return f"{RED if rtt is None else GREEN}{text:>{width}}{PLAIN}"


def ping_all(source: Place, targets: list[Place], family: int) -> list[float | None]:
    """Round-trip times in milliseconds from one source, None where nothing came back."""
    return [ping(source, t.address if family == 4 else t.address6) for t in targets]


def ping(source: Place, address: str) -> float | None:
    """One ping from inside `source`'s namespace."""
    command = [*inside(source), "ping", "-n", "-c", "1", "-W", "2", address]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    _, found, rest = answer.stdout.partition("time=")
    return float(rest.split()[0]) if found else None


def copy(source: Place, target: Place) -> bool:
    """Move COPY_SIZE bytes over TCP; compare checksums; print the rate."""
    tool = [PYTHON, "-m", "node.lab.traffic"]
    with subprocess.Popen(
        [*inside(target), *tool, "receive", str(PORT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # its last words when everything is interrupted
        text=True,
    ) as receiver:
        assert receiver.stdout is not None
        try:
            receiver.stdout.readline()  # it is listening
            sent = subprocess.run(
                [*inside(source), *tool, "send", target.address, str(PORT), str(COPY_SIZE)],
                capture_output=True,
                text=True,
                check=True,
            )
            received = json.loads(receiver.stdout.readline())
        finally:
            receiver.kill()  # it has ended, unless this was interrupted
    checksum = json.loads(sent.stdout)["sha256"]
    same, own = checksum == received["sha256"], received["peer"] == source.address
    rate = received["bytes"] * 8 / received["seconds"] / 1e9
    print(f"sent      sha256 {checksum}")
    print(f"received  sha256 {received['sha256']}")
    print(f"{'equal' if same else 'DIFFERENT'}; {rate:.2f} Gbit/s, encrypted; ", end="")
    whose = "its own address" if own else "which is NOT its own address"
    print(f"{target.name} saw {source.name} as {ip_address(received['peer'])}, {whose}")
    return same and own


def inside(place: Place) -> list[str]:
    """Prefix of a command that is to run in a namespace."""
    return ["ip", "netns", "exec", place.netns]


def say(text: str) -> None:
    """A headline."""
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
