"""Routes of a machine that cross the pod network: found at join and later, named on every node."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.support.machines import Machine, Yard, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.waiting import eventually
from tests.support.wiretap import Wiretap

pytestmark = NEEDS_KERNEL

WITHIN = 60.0
CROSSING = "10.244.200.0/24"


@pytest.fixture(scope="module")
def yard(make_module_yard: YardMaker) -> Yard:
    """Two nodes, and a machine that is none yet."""
    yard = make_module_yard(3)
    yard.found()
    yard.join(yard.machines[1])
    return yard


def bridge(machine: Machine, address: str) -> None:
    """What a container engine does when it makes a network."""
    for words in (
        "ip link add docker0 type bridge",
        f"ip addr add {address} dev docker0",
        "ip link set docker0 up",
    ):
        run(machine.netns, *words.split())


def notices(machine: Machine) -> list[str]:
    found = machine.ask("status")["notices"]
    return [one["what"] for one in found if one["code"] == "node-range-overlap"]


def test_a_network_of_an_engine_inside_the_range_is_named_everywhere(yard: Yard) -> None:
    founder, second, _ = yard.machines
    bridge(second, "10.244.200.1/24")
    eventually(lambda: "range-overlap" in second.problems(), within=WITHIN)
    (problem,) = (one for one in second.ask("status")["problems"] if one["code"] == "range-overlap")
    assert f"{CROSSING} dev docker0" in problem["why"]
    eventually(lambda: bool(notices(founder)), within=WITHIN)
    assert f"node2 reaches {CROSSING} by itself" in notices(founder)[0]
    assert "range-overlap" not in founder.problems()
    run(second.netns, "ip", "link", "del", "docker0")
    eventually(lambda: not second.problems() and not notices(founder), within=WITHIN)


def test_a_route_in_the_table_of_a_vpn_counts(yard: Yard) -> None:
    second = yard.machines[1]
    table, rule = f"{CROSSING} dev eth0 table 52", "from all lookup 52 pref 5270"
    run(second.netns, "ip", "route", "add", *table.split())
    run(second.netns, "ip", "rule", "add", *rule.split())
    eventually(lambda: "range-overlap" in second.problems(), within=WITHIN)
    run(second.netns, "ip", "rule", "del", *rule.split())
    eventually(lambda: not second.problems(), within=WITHIN)
    run(second.netns, "ip", "route", "del", *table.split())


def test_who_joins_from_such_a_machine_hears_of_it_at_once(yard: Yard) -> None:
    founder, _, third = yard.machines
    bridge(third, "10.244.200.1/24")
    done = third.types("join", founder.says("token").strip(), "--name", third.name)
    assert done.returncode == 0
    why = f"the cluster range 10.244.0.0/16 overlaps the host route {CROSSING} dev docker0"
    assert f"muslin: the daemon will not start: {why}: remove that route" in done.stderr
    assert "next: " not in done.stderr
    refused = third.types("up")
    assert refused.returncode == 1
    assert why in refused.stderr
    run(third.netns, "ip", "link", "del", "docker0")
    third.up()


def test_an_underlay_that_is_routed_into_the_tun_is_not_used_until_that_is_over(yard: Yard) -> None:
    founder, second, _ = yard.machines
    eventually(lambda: path(founder, second) == "direct", within=WITHIN)
    looped = f"{second.address}/32"
    run(founder.netns, "ip", "route", "add", looped, "dev", "muslin0")
    eventually(lambda: "underlay-loop" in founder.problems(), within=WITHIN)
    eventually(lambda: path(founder, second) == "none", within=WITHIN)
    with Wiretap(founder.netns, "muslin0") as tap:
        founder.types("ping", "node2", "-c", "1")
    there = ip_address(second.address).packed
    assert not [packet for packet in tap.packets if there in packet[:40]]
    run(founder.netns, "ip", "route", "del", looped)
    eventually(lambda: path(founder, second) == "direct", within=WITHIN)
    eventually(lambda: not founder.problems(), within=WITHIN)


def path(machine: Machine, other: Machine) -> str:
    return next(str(row["path"]) for row in machine.get("nodes") if row["name"] == other.name)
