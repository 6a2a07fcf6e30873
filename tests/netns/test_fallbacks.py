"""What a machine may lack: everything works without it, only slower.

Each case starts the daemons of one lab again with other settings. `node1 without` talks to a node
that has everything: what one side sends as a super-packet the other has to take in pieces, and the
other way round. The last tests change what settings cannot: the underlay, and the processor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.errors import NodeError
from node.lab.processes import command
from tests.support.labs import Lab, LabMaker, Place
from tests.support.machines import Machine
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import Background, background
from tests.support.traffic import copy, echo_datagrams, reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

COPY = 8 << 20
SIZES = [1, 512, 1300, 1452, 1472, 1473, 3000, 9000, 20_000, 60 * 1024]

BACK = 60.0
"""Seconds until traffic flows again after daemons were started, on a machine that is busy."""

TUN = frozenset({"checksum", "tso", "uso"})
UDP = frozenset({"udp_gso", "udp_gro"})
NONE: frozenset[str] = frozenset()


def offload(*switches: str, tun: list[str] | None = None) -> str:
    """A config.toml that does without some offloads, or has only some of the TUN's."""
    some = [] if tun is None else [f"tun = {tun}"]
    return "\n".join(["[offload]", *(f"{switch} = false" for switch in switches), *some])


@dataclass(frozen=True)
class Case:
    """What is in config.toml of the two nodes, and the offloads that node1 then has."""

    node1: str
    node2: str
    has: frozenset[str]


CASES = {
    "node1 without udp_gso": Case(offload("udp_gso"), "", TUN | {"udp_gro"}),
    "node1 without udp_gro": Case(offload("udp_gro"), "", TUN | {"udp_gso"}),
    "node1 without tun": Case(offload("tun"), "", UDP),
    "node1 without uso": Case(offload(tun=["checksum", "tso"]), "", UDP | {"checksum", "tso"}),
    "node1 without tso": Case(offload(tun=["checksum", "uso"]), "", UDP | {"checksum", "uso"}),
    "node1 with checksum alone": Case(offload(tun=["checksum"]), "", UDP | {"checksum"}),
    "node1 without udp": Case(offload("udp_gso", "udp_gro"), "", TUN),
    "node1 without any": Case(offload("udp_gso", "udp_gro", "tun"), "", NONE),
    "both without any": Case(
        offload("udp_gso", "udp_gro", "tun"), offload("udp_gso", "udp_gro", "tun"), NONE
    ),
    "plain asyncio": Case('loop = "asyncio"', 'loop = "asyncio"', TUN | UDP),
}


@pytest.fixture(scope="module")
def bare(make_module_lab: LabMaker) -> Lab:
    """Two nodes that are started again and again."""
    return make_module_lab()


def works(near: Place, far: Place) -> None:
    """All kinds of traffic get through, both ways."""
    for family, (one, other) in ((4, (near, far)), (6, (far, near))):
        eventually(lambda: reaches(one, other.at(family)), within=BACK)  # noqa: B023 - at once
        copy(one, other, COPY, family=family)
        echo_datagrams(one, other, SIZES, family=family)


@pytest.mark.parametrize("name", CASES)
def test_nothing_but_speed_depends_on(bare: Lab, name: str) -> None:
    case = CASES[name]
    machines = [Machine(bare.info, node.name) for node in bare.nodes]
    for machine, settings in zip(machines, (case.node1, case.node2), strict=True):
        machine.stop()
        (machine.state / "config.toml").write_text(settings)
        machine.up()
    works(bare["node1-pod1"], bare["node2-pod1"])
    offloads = set(machines[0].ask("status")["offloads"])
    assert offloads <= case.has
    assert offloads | {"uso"} >= case.has, "uso came with Linux 6.2"
    eventually(lambda: shown(bare, "node1") == offloads, within=BACK)
    inner = NONE if "tun" in case.node2 else offloads & TUN
    eventually(lambda: shown(bare, "node2") & TUN == inner, within=BACK)
    assert uses_uvloop(machines[0]) == ("asyncio" not in case.node1)


def shown(lab: Lab, node: str) -> set[str]:
    """The offloads that a node shows for its only session."""
    (session,) = lab.get(node, "sessions")
    return set(session["offloads"])


def uses_uvloop(machine: Machine) -> bool:
    return "uvloop" in Path("/proc", str(machine.pid), "maps").read_text()


def test_the_underlay_may_be_ipv6(lab6: Lab) -> None:
    works(lab6["node1-pod1"], lab6["node2-pod1"])
    for node, peer in (("node1", "node2"), ("node2", "node1")):
        endpoint = lab6.session(node, peer)["endpoint"]
        assert endpoint == f"[{lab6.underlay_address(peer)}]:6875"


@pytest.fixture
def slow_processor(bare: Lab, tmp_path: Path) -> Iterator[Machine]:
    """node1, with a daemon that finds a processor without AES instructions."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(re.sub(r"\baes\b", "", Path("/proc/cpuinfo").read_text()))
    machine = Machine(bare.info, "node1")
    machine.stop()
    (machine.state / "config.toml").write_text("")
    mount = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'
    # In a mount namespace of its own: nobody else's /proc changes.
    up = command(machine.state, "up")
    with background(machine.netns, "unshare", "-m", "sh", "-c", mount, str(cpuinfo), *up) as daemon:
        eventually(lambda: is_up(machine, daemon), within=BACK)
        yield machine
    machine.up()


def is_up(machine: Machine, daemon: Background) -> bool:
    try:
        return machine.ask("status")["address"] is not None
    except NodeError as error:
        raise AssertionError(daemon.said()) from error


def test_a_node_without_aes_instructions_gets_the_other_cipher(
    bare: Lab, slow_processor: Machine
) -> None:
    works(bare["node1-pod1"], bare["node2-pod1"])
    assert bare.session(slow_processor.name, "node2")["cipher"] == "chacha20-poly1305"
    assert bare.session("node2", slow_processor.name)["cipher"] == "chacha20-poly1305"
