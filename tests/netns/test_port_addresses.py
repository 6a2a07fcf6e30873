"""A port of a node at an address that the machine does not have yet, any more, or never will."""

from __future__ import annotations

import pytest

from node.kernel.nft import Firewall
from tests.support.calls import Call, seen
from tests.support.labs import Place
from tests.support.machines import Machine
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.waiting import eventually

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft"),
]

SOON = 20.0
LATER = {4: "203.0.113.9", 6: "2001:db8:7::9"}


def nowhere(machine: Machine) -> list[str]:
    found = machine.ask("status")["problems"]
    return [one["what"] for one in found if one["code"] == "port-nowhere"]


def test_it_is_named_until_the_address_is_there_and_works_from_then_on(node1: Machine) -> None:
    four, six = LATER.values()
    ports = "--port", f"{four}:8080:80", "--port", f"[{six}]:8080:80"
    node1.says("pod", "add", "shop", *ports, "--port", "8081:81", "--port", "127.0.0.1:8082:82")
    shop, node = node1.place("shop"), Place("node1", "", node1.netns, *LATER.values())
    told = [f"port {where}:8080:80/tcp of pod shop leads nowhere" for where in (four, f"[{six}]")]
    assert nowhere(node1) == told
    done = node1.types("status")
    assert done.returncode == 1
    assert f"this machine does not have the address {four}" in done.stdout
    for family in LATER:
        add = f"ip address add {LATER[family]} dev eth0"
        run(node1.netns, *add.split(), *(["nodad"] if family == 6 else []))
        eventually(lambda: told[0] not in nowhere(node1), within=SOON)
        assert seen(Call(node, LATER[family], 8080), shop, 80).host == LATER[family]
    eventually(lambda: nowhere(node1) == [], within=SOON)
    assert node1.types("status").returncode == 0
    run(node1.netns, *f"ip address del {four} dev eth0".split())
    eventually(lambda: nowhere(node1) == told[:1], within=SOON)
    node1.says("pod", "del", "shop")
    assert nowhere(node1) == []


def test_a_whole_range_that_the_machine_takes_for_its_own_is_no_problem(node1: Machine) -> None:
    local = "local 198.51.100.0/24 dev lo"
    run(node1.netns, "ip", "route", "add", *local.split())
    node1.says("pod", "add", "anyip", "--port", "198.51.100.7:8083:80")
    eventually(lambda: nowhere(node1) == [], within=SOON)
    node = Place("node1", "", node1.netns, node1.address, "")
    assert seen(Call(node, "198.51.100.7", 8083), node1.place("anyip"), 80).host
    run(node1.netns, "ip", "route", "del", *local.split())
    eventually(lambda: len(nowhere(node1)) == 1, within=SOON)
    node1.says("pod", "del", "anyip")
