"""Everything of a node that a pod or a daemon could leave behind, as text that can be compared."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from node.kernel import netns
from tests.support.machines import Machine
from tests.support.processes import run

_COMMANDS = {
    "link": "ip -o link",
    "address": "ip -o addr",
    "IPv4 route": "ip -4 route show table all",
    "IPv6 route": "ip -6 route show table all",
    "IPv4 rule": "ip -4 rule",
    "IPv6 rule": "ip -6 rule",
    "neighbour": "ip neigh show nud permanent",
    "queueing": "tc qdisc",
    "nft": "nft list ruleset",
}
_PASSING = re.compile(
    r"^\d+: |@if\d+|link-netns\S* \S+|qlen \d+|(valid_lft|preferred_lft|expires|refcnt) \S+"
    r"|packets \d+ bytes \d+|state \S+|qdisc \S+ [0-9a-f]+:|linkdown|<\S+>"
)
"""Numbers that another life of the same thing has differently."""


def inventory(machine: Machine) -> set[str]:
    """What there is of a node.

    Links, addresses, routes, rules, neighbours, queueing disciplines and packet rules, by their
    text; the daemon's descriptors and threads and the namespace's processes, by their number; the
    files of the state folder, by their names.
    """
    found = {
        f"{kind}: {_PASSING.sub('', line).strip()}"
        for kind, command in _COMMANDS.items()
        for line in run(machine.netns, *command.split()).splitlines()
    }
    process = Path("/proc", str(machine.pid))
    counts = {
        "descriptors": len(os.listdir(process / "fd")),
        "threads": len(os.listdir(process / "task")),
        "processes": len(list(_inside(machine.netns))),
    }
    found |= {f"{kind}: {count}" for kind, count in counts.items()}
    return found | {f"file: {entry.name}" for entry in machine.state.rglob("*")}


def _inside(namespace: str) -> Iterator[int]:
    """The processes in a namespace."""
    wanted = os.stat(netns.path_of(namespace))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.path.samestat(wanted, os.stat(entry / "ns/net")):
                    yield int(entry.name)
            except OSError:
                continue  # gone


def changed(before: set[str], after: set[str]) -> list[str]:
    """What there is more and less, one line each."""
    more = [f"more: {one}" for one in sorted(after - before)]
    return more + [f"less: {one}" for one in sorted(before - after)]
