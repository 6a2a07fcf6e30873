"""What a machine is like, as far as its node depends on it: for comparing machines with each other.

A flat JSON object, because it goes to other members, of other versions perhaps: whoever reads it
takes the keys that it knows, of the types that it expects, and leaves the rest (`node.doctor`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from node.config import NodeConfig
from node.control.present import DaemonFacts
from node.preflight import has_aes
from node.surroundings import Surroundings
from overlay.wire.messages import FACTS_LIMIT

Fact = str | int | float | bool | list[str]
MachineFacts = dict[str, Fact]

SYSCTLS: Final = {
    "ip_forward": "net/ipv4/ip_forward",
    "ip6_forward": "net/ipv6/conf/all/forwarding",
    "rp_filter": "net/ipv4/conf/all/rp_filter",
    "bridge_filter": "net/bridge/bridge-nf-call-iptables",
}
"""Settings of the kernel that decide what becomes of pods' packets: key -> path below /proc/sys."""

MOST: Final = 32
"""Elements of one list."""

LARGEST: Final = 2**63
"""Numbers of another member are smaller; so none of them is infinite, or not a number."""

_SYSCTL_ROOT: Final = Path("/proc/sys")


def machine_facts(
    config: NodeConfig, facts: DaemonFacts, around: Surroundings, problems: Sequence[str]
) -> MachineFacts:
    """What this machine is like now.

    Args:
        config: what the node was told.
        facts: what the daemon found out.
        around: addresses, MTUs and routes.
        problems: codes of what keeps the node from being well.

    Returns:
        Scalars and lists of texts. A setting that the kernel does not have is left out.
    """
    return {
        "version": facts.version,
        "time": time.time(),
        "kernel": os.uname().release,
        "mtu": config.mtu,
        "underlay_mtu": around.underlay_mtu,
        "lanes": config.lanes,
        "offloads": sorted(facts.offloads),
        "aes": has_aes(),
        "quarantine": config.quarantine,
        "egress": config.egress,
        "guard": facts.guard.why or facts.guard.by,
        "crossed": [str(prefix) for prefix in around.guard.crossed][:MOST],
        "problems": sorted({*problems, *(one.code for one in facts.problems)})[:MOST],
        **read_sysctls(),
    }


def read_sysctls(root: Path = _SYSCTL_ROOT) -> dict[str, int]:
    """The settings of `SYSCTLS` that the kernel has."""
    found = {}
    for key, path in SYSCTLS.items():
        try:
            found[key] = int((root / path).read_text())
        except (OSError, ValueError):
            continue
    return found


def write_facts(facts: MachineFacts) -> str:
    """The text for another member, at most `FACTS_LIMIT` characters: what is too long is left out.

    >>> write_facts({"version": "0.1.0", "lanes": 1})
    '{"version":"0.1.0","lanes":1}'
    """
    text = json.dumps(facts, separators=(",", ":"))
    if len(text) <= FACTS_LIMIT:
        return text
    return json.dumps({key: facts[key] for key in ("version", "time") if key in facts})


def read_facts_untrusted(text: str) -> MachineFacts:
    """What another member said; what has no shape of a fact is left out.

    >>> read_facts_untrusted('{"lanes": 2, "x": {"y": 1}, "z": [1]}')
    {'lanes': 2}
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, Mapping):
        return {}
    return {str(key): value for key, value in said.items() if _is_fact(value)}


def _is_fact(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    if isinstance(value, (int, float)):
        return -LARGEST < value < LARGEST
    return isinstance(value, str)
