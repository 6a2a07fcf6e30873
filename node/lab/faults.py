"""Cuts in the underlay: two nodes stop hearing each other, everybody else goes on.

Packets between two ports of the bridge are dropped by an nftables rule in the namespace of the
underlay, in both directions, ARP and neighbour discovery included. Both nodes keep their links, so
they notice nothing but silence, as with a broken line between two switches.

Needs the program `nft` (Debian: nftables) and a kernel with NF_TABLES_BRIDGE, which distributions
have. Tried and rejected: tc filters that drop (act_gact) and VLANs on the bridge, which not every
kernel has; blackhole routes in the nodes, which the sender notices.

References:
    nft(8): families (bridge), and the way to replace a table in one transaction.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from node.errors import NodeError
from node.kernel import netns
from node.lab.store import Cut, LabInfo

_TABLE = "bridge muslin_lab"
_PATH = os.pathsep.join([os.defpath, "/usr/sbin", "/sbin"])


def cut_between(info: LabInfo, a: str, b: str) -> Cut:
    """The cut between two nodes, checked.

    Raises:
        NodeError: there are no such nodes, or it is the same twice. Nothing else.
    """
    first, second = sorted((info.topology.node(a).name, info.topology.node(b).name))
    if first == second:
        raise NodeError(f"{a} cannot be cut off from itself", "name two nodes")
    return first, second


def ruleset(cuts: Sequence[Cut]) -> str:
    """The nftables program that puts exactly these cuts in force, whatever was before.

    A port of the bridge has the name of its node.

    >>> print(ruleset([]))
    add table bridge muslin_lab
    delete table bridge muslin_lab
    """
    lines = [f"add table {_TABLE}", f"delete table {_TABLE}"]
    if cuts:
        rules = [
            f'    iifname "{source}" oifname "{target}" counter drop'
            for a, b in cuts
            for source, target in ((a, b), (b, a))
        ]
        lines += [
            f"table {_TABLE} {{",
            "  chain cuts {",
            "    type filter hook forward priority 0; policy accept;",
            *rules,
            "  }",
            "}",
        ]
    return "\n".join(lines)


def put_in_force(namespace: str, cuts: Sequence[Cut]) -> None:
    """Put exactly these cuts in force on the bridge in a namespace.

    Raises:
        NodeError: there is no nft, or the kernel lacks what it needs. Nothing else.
    """
    nft = shutil.which("nft") or shutil.which("nft", path=_PATH)
    if nft is None:
        raise NodeError("the program nft is missing", "apt-get install nftables", "no-nft")
    done = netns.run_in(
        namespace,
        subprocess.run,
        [nft, "-f", "-"],
        input=ruleset(cuts),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise NodeError(f"nft refused: {said}", "the kernel needs NF_TABLES_BRIDGE", "nft-refused")
