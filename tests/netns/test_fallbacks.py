"""What a kernel may lack costs speed, never data: every offload forced off, on both sides or one.

all on    bursts of up to 44 segments each way
gso off   one system call per datagram out       gro off   one datagram per read in
tun off   packets of wire size from the TUN, software segmentation into it
"""

from __future__ import annotations

import pytest

from node.lab.verbs import lab_kill, lab_start
from tests.support.labs import Lab, LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.traffic import copy, echo_datagrams, reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SIZE = 8 << 20
SIZES = (1, 1400, 1473, 9000, 60_000)

UDP_OFF = {"MUSLIN_OFFLOAD_UDP_GSO": "false", "MUSLIN_OFFLOAD_UDP_GRO": "false"}
TUN_OFF = {"MUSLIN_OFFLOAD_TUN": "false"}


def moves_everything(lab: Lab) -> None:
    """TCP and UDP, both families, both directions, every byte as it was sent."""
    one, two = lab["node1-pod1"], lab["node2-pod1"]
    for source, target in ((one, two), (two, one)):
        for family in (4, 6):
            assert reaches(source, target.at(family))
            copy(source, target, SIZE, family=family)
            echo_datagrams(source, target, SIZES, family=family)


def offloads(lab: Lab, node: str) -> set[str]:
    return set(lab.ask(node, "status")["offloads"])


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        pytest.param(UDP_OFF, {"udp_gso", "udp_gro"}, id="udp"),
        pytest.param(TUN_OFF, {"checksum", "tso", "uso"}, id="tun"),
        pytest.param(
            UDP_OFF | TUN_OFF | {"MUSLIN_LOOP": "asyncio"},
            {"udp_gso", "udp_gro", "checksum", "tso", "uso"},
            id="everything-on-plain-asyncio",
        ),
    ],
)
def test_without_offloads_everything_arrives_intact(
    make_lab: LabMaker, settings: dict[str, str], missing: set[str]
) -> None:
    lab = make_lab(nodes=2, pods=1, settings=settings)
    assert not offloads(lab, "node1") & missing
    moves_everything(lab)


@pytest.mark.parametrize("underlay", ["ipv4", "ipv6"])
def test_a_node_with_offloads_and_one_without_understand_each_other(
    make_lab: LabMaker, underlay: str
) -> None:
    lab = make_lab(nodes=2, pods=1, underlay=underlay)
    lab_kill(lab.name, "node2", store=lab.store)
    config = lab.info.state("node2") / "config.toml"
    before = config.read_text() if config.exists() else ""
    config.write_text(f"{before}\n[offload]\nudp_gso = false\nudp_gro = false\ntun = false\n")
    lab_start(lab.name, "node2", store=lab.store)
    eventually(lambda: reaches(lab["node1-pod1"], lab["node2-pod1"].address), within=10.0)
    assert offloads(lab, "node1") >= {"udp_gso", "udp_gro", "tso"}
    assert offloads(lab, "node2") == set()
    moves_everything(lab)
