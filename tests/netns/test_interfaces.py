"""Several interfaces in one namespace, and pods whose runtime moves their end itself."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from node.kernel.manager import KernelManager
from node.kernel.model import peer_name, veth_macs, veth_name
from node.kernel.nft import Firewall
from overlay.attachment import Attachment
from overlay.views import PodView, Problem
from tests.support.bed import Bed, manage, pod, run, veth_index
from tests.support.privileged import NEEDS_KERNEL

pytestmark = NEEDS_KERNEL

GATEWAYS = {4: "169.254.1.1", 6: "fe80::1"}


def attach(bed: Bed, *pods: PodView) -> tuple[Problem, ...]:
    """Connect pods beside those of the bed, with the guard on; the problems that are left."""

    async def work(manager: KernelManager) -> tuple[Problem, ...]:
        await manager.apply(bed.state1)
        for view in pods:
            await manager.attach_pod(view)
        looked = await manager.apply(replace(bed.state1, pods=(*bed.state1.pods, *pods)))
        await manager.close(remove=False)
        return looked.problems

    problems: tuple[Problem, ...] = manage(bed.node1, work, Firewall())
    return problems


def pings(where: str, to: object, *options: str) -> bool:
    return " 0% packet loss" in run(where, "ping", "-c1", "-W20", *options, str(to))


def defaults(where: str, version: int) -> list[str]:
    listed = run(where, "ip", f"-{version}", "-j", "route", "show", "default")
    return [route["dev"] for route in json.loads(listed)]


@pytest.fixture
def two(bed: Bed, spare: str) -> tuple[PodView, PodView]:
    """Two pods of one namespace."""
    first, second = (replace(pod(1, number), netns=spare) for number in (5, 6))
    return first, replace(second, attachment=Attachment("c1", "net1"))


def test_each_interface_answers_for_its_own_addresses(bed: Bed, two, spare: str) -> None:
    assert attach(bed, *two) == ()
    for version in (4, 6):
        assert defaults(spare, version) == ["eth0"]
    for view in two:
        for address, far in (
            (view.address, bed.pod21.address),
            (view.address6, bed.pod21.address6),
        ):
            assert pings(bed.pod21.netns, address)
            assert pings(bed.pod12.netns, address)
            assert pings(spare, far, "-I", str(address))


def test_the_second_interface_stays_so_when_the_daemon_starts_anew(bed: Bed, two, spare) -> None:
    attach(bed, *two)
    before = [run(spare, "ip", f"-{version}", "rule") for version in (4, 6)]
    assert attach(bed, *two) == ()
    assert [run(spare, "ip", f"-{version}", "rule") for version in (4, 6)] == before
    assert all(str(two[1].address) in rules or "fd00" in rules for rules in before)
    assert defaults(spare, 4) == defaults(spare, 6) == ["eth0"]


def test_a_lost_rule_of_the_second_comes_back_and_an_old_one_goes(bed: Bed, two, spare) -> None:
    attach(bed, *two)
    run(spare, "ip", "rule", "del", "from", str(two[1].address))
    old = "table 77 priority 10900"
    run(spare, "ip", "rule", "add", "from", "10.9.9.9", *old.split(), "protocol", "109")
    run(spare, "ip", "rule", "add", "from", "10.9.9.8", *old.split())
    attach(bed, *two)
    rules = run(spare, "ip", "rule")
    assert f"from {two[1].address} " in rules
    assert "10.9.9.9" not in rules
    assert "10.9.9.8" in rules  # somebody else's
    assert pings(bed.pod21.netns, two[1].address)


def test_the_way_out_of_somebody_elses_network_stays(bed: Bed, spare: str) -> None:
    run(spare, "ip", "link", "add", "ens0", "type", "veth", "peer", "name", "far")
    run(spare, "ip", "addr", "add", "192.0.2.2/24", "dev", "ens0")
    run(spare, "ip", "link", "set", "ens0", "up")
    run(spare, "ip", "link", "set", "far", "up")
    run(spare, "ip", "route", "add", "default", "via", "192.0.2.1")
    view = replace(pod(1, 5), netns=spare)
    assert attach(bed, view) == ()
    assert (defaults(spare, 4), defaults(spare, 6)) == (["ens0"], ["eth0"])
    assert pings(bed.pod21.netns, view.address)
    assert pings(bed.pod21.netns, view.address6)


# -- handed over -----------------------------------------------------------------------------------

HANDED = replace(pod(1, 7), netns="", owner="docker", attachment=Attachment("e1", handed=True))
PEER = peer_name(HANDED.name)


def move(bed: Bed, to: str) -> None:
    """What Docker does once the driver has told it the name of the link."""
    run(bed.node1, "ip", "link", "set", PEER, "netns", to, "name", "eth0")
    for version, address in ((4, HANDED.address), (6, HANDED.address6)):
        run(to, "ip", "addr", "add", str(address), "dev", "eth0", *(["nodad"] * (version == 6)))
    run(to, "ip", "addr", "add", "fe80::2/64", "dev", "eth0", "nodad")
    run(to, "ip", "link", "set", "eth0", "up")
    for version, gateway in GATEWAYS.items():
        if version == 4:
            run(to, "ip", "route", "add", gateway, "dev", "eth0")
        run(to, "ip", f"-{version}", "route", "add", "default", "via", gateway, "dev", "eth0")


def test_a_pod_that_is_handed_over_works_once_its_runtime_has_moved_it(bed: Bed, spare) -> None:
    assert attach(bed, HANDED) == ()
    (link,) = json.loads(run(bed.node1, "ip", "-j", "link", "show", PEER))
    assert link["operstate"] == "DOWN"
    assert (link["mtu"], link["address"]) == (1500, veth_macs(HANDED.name).pod)
    move(bed, spare)
    assert pings(bed.pod21.netns, HANDED.address)
    assert pings(spare, bed.pod21.address6)
    assert pings(spare, bed.pod12.address)


def test_what_was_handed_over_is_not_touched_any_more(bed: Bed, spare: str) -> None:
    attach(bed, HANDED)
    move(bed, spare)
    run(spare, "ip", "addr", "flush", "dev", "eth0")
    before = veth_index(bed.node1, HANDED.name)
    state = replace(bed.state1, pods=(*bed.state1.pods, HANDED))
    assert manage(bed.node1, lambda manager: manager.apply(state)).problems == ()
    assert veth_index(bed.node1, HANDED.name) == before
    assert str(HANDED.address) not in run(spare, "ip", "addr")


def test_one_whose_link_is_gone_is_named_and_not_made_again(bed: Bed, spare: str) -> None:
    state = replace(bed.state1, pods=(*bed.state1.pods, HANDED))
    attach(bed, HANDED)
    move(bed, spare)

    async def lose(manager: KernelManager) -> tuple[object, ...]:
        await manager.apply(state)
        there = await manager.present(state.pods)
        run(spare, "ip", "link", "del", "eth0")
        looked = await manager.apply(state)
        return there, looked.problems, await manager.present(state.pods)

    there, problems, left = manage(bed.node1, lose)
    assert HANDED.name in there
    assert HANDED.name not in left
    (problem,) = problems
    assert (problem.code, HANDED.name in problem.what) == ("pod-lost", True)
    assert "mup" not in run(bed.node1, "ip", "link")


def test_one_that_nobody_came_for_goes_with_both_ends(bed: Bed) -> None:
    async def work(manager: KernelManager) -> None:
        await manager.apply(bed.state1)
        await manager.attach_pod(HANDED)
        assert PEER in run(bed.node1, "ip", "link")
        await manager.detach_pod(HANDED.name)

    manage(bed.node1, work)
    assert PEER not in run(bed.node1, "ip", "link")
    assert veth_name(HANDED.name) not in run(bed.node1, "ip", "link")
