"""Pods come, are adopted, repaired and go; what cannot be one is refused, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from node.kernel import netns, pods
from node.kernel.errors import KernelError
from node.kernel.manager import KernelManager
from node.kernel.model import queue_name, veth_name
from node.kernel.nft import Firewall
from overlay.attachment import Attachment, Rate
from overlay.views import PodView, Snapshot
from tests.support.bed import Bed, applied, manage, name, pod, run, veth_index
from tests.support.privileged import NEEDS_KERNEL
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

LOOKUPS = 6
"""Of equal default routes whose gateways it knows, the kernel takes now one, now the other."""


def test_a_restarted_daemon_adopts_its_pods_as_they_are(bed: Bed) -> None:
    before = veth_index(bed.node1, "pod11")
    assert applied(bed.node1, bed.state1) == ()
    assert veth_index(bed.node1, "pod11") == before


def test_a_pod_is_attached_once_however_often_it_is_asked_for(bed: Bed) -> None:
    async def twice(manager: KernelManager) -> None:
        await manager.apply(bed.state1)
        await manager.attach_pod(bed.pod11)
        await manager.attach_pod(bed.pod11)

    before = veth_index(bed.node1, "pod11")
    manage(bed.node1, twice)
    assert veth_index(bed.node1, "pod11") == before


def repaired(bed: Bed, spare: str, *harms: str, dual: bool = True) -> list[tuple[str, ...]]:
    """What was put right after a pod with limits had come, and after each harm."""
    limits = Attachment(ingress=Rate(10_000_000, 8), egress=Rate(10_000_000, 8))
    before: Snapshot = replace(bed.state1, pods=())
    view = replace(pod(1, 7), netns=spare, attachment=limits)
    if not dual:
        view = replace(view, address6=None)
        own = before.own_prefixes[:1]
        before = replace(before, cidr6=None, address6=None, own_prefixes=own)
    after = replace(before, pods=(view,))

    async def look(manager: KernelManager) -> list[tuple[str, ...]]:
        await manager.apply(before)
        await manager.attach_pod(view)
        told = [await manager.apply(after)]
        for harm in harms:
            assert await asyncio.to_thread(run, bed.node1, *harm.split()) == ""
            told += [await manager.apply(after), await manager.apply(after)]
        assert not any(looked.problems for looked in told)
        return [looked.repaired for looked in told]

    shown: list[tuple[str, ...]] = manage(bed.node1, look)
    return shown


@pytest.mark.parametrize("dual", [True, False], ids=["ipv4 and ipv6", "ipv4"])
def test_what_a_pod_gets_when_it_comes_is_no_repair(bed: Bed, spare: str, dual: bool) -> None:
    assert repaired(bed, spare, dual=dual) == [()]


@pytest.mark.parametrize("dual", [True, False], ids=["ipv4 and ipv6", "ipv4"])
def test_damage_of_a_pods_links_is_put_right_and_told_once(
    bed: Bed, spare: str, dual: bool
) -> None:
    veth, queue = veth_name("pod17"), queue_name("pod17")
    told = {
        f"ip link set {veth} mtu 1400": f"configure link {veth}",
        f"ip link set {queue} down": f"configure link {queue}",
        f"ip link set {queue} alias somebody": f"configure link {queue}",
        f"ip link del {queue}": f"set the limit on {veth} of what goes from the pod",
    }
    expected = [(), *(lines for said in told.values() for lines in ((said,), ()))]
    assert repaired(bed, spare, *told, dual=dual) == expected


def test_a_half_made_pod_is_made_again(bed: Bed) -> None:
    before = veth_index(bed.node1, "pod11")
    run(bed.pod11.netns, "ip", "addr", "flush", "dev", "eth0", "scope", "global")
    assert applied(bed.node1, bed.state1) == ()
    assert veth_index(bed.node1, "pod11") != before
    assert " 0% packet loss" in run(bed.pod11.netns, "ping", "-c1", "-W20", str(bed.pod21.address))


def test_a_network_that_comes_after_ours_does_not_take_the_answers_away(
    bed: Bed, spare: str
) -> None:
    """As podman's bridge does, with a default route in front of ours."""
    view = replace(pod(1, 7), netns=spare)

    async def add(manager: KernelManager) -> None:
        await manager.apply(bed.state1)
        await manager.attach_pod(view)

    manage(bed.node1, add)
    commands = """
        link add eth1 type veth peer name far
        link set far up
        link set eth1 up
        address add 192.0.2.1/24 dev eth1
        neigh add 192.0.2.254 lladdr 02:00:00:00:00:01 dev eth1 nud permanent
        route prepend default via 192.0.2.254 dev eth1
    """
    for command in commands.strip().splitlines():
        assert run(spare, "ip", *command.split()) == ""
    target = ("ip", "route", "get", "203.0.113.1", "from", str(view.address))
    assert any("dev eth1" in run(spare, *target) for _ in range(LOOKUPS))
    assert pods.mend(pods.PodEnd.of(view), 1500, thorough=False) == ([], [])
    assert all("via 169.254.1.1 dev eth0" in run(spare, *target) for _ in range(LOOKUPS))


def test_a_lost_route_in_a_pod_comes_back_without_a_new_veth(bed: Bed) -> None:
    before = veth_index(bed.node1, "pod11")
    run(bed.pod11.netns, "ip", "route", "flush", "proto", "109")
    assert applied(bed.node1, bed.state1) == ()
    assert veth_index(bed.node1, "pod11") == before
    assert "default via 169.254.1.1" in run(bed.pod11.netns, "ip", "route")


def test_a_pod_that_moved_to_another_namespace_is_connected_there(bed: Bed, spare: str) -> None:
    moved = replace(bed.pod11, netns=spare)
    assert applied(bed.node1, replace(bed.state1, pods=(moved, bed.pod12))) == ()
    assert "eth0" not in run(bed.pod11.netns, "ip", "link")
    assert " 0% packet loss" in run(spare, "ping", "-c1", "-W20", str(bed.pod21.address))


def test_a_pod_whose_host_end_was_moved_away_is_connected_anew(bed: Bed, spare: str) -> None:
    link = veth_name("pod11")
    assert run(bed.node1, "ip", "link", "set", link, "netns", Path(spare).name) == ""
    assert applied(bed.node1, bed.state1) == ()
    assert " 0% packet loss" in run(bed.pod11.netns, "ping", "-c1", "-W20", str(bed.pod21.address))
    assert link not in run(spare, "ip", "link"), "it went with the other end"


def test_a_pod_named_by_a_process_is_mended_and_never_made_in_another_namespace(
    bed: Bed, spare: str
) -> None:
    """Its number may be another's by now: here the whole path leads to another namespace."""
    path = f"/proc/{os.getpid()}/root{spare}"
    view = replace(pod(1, 7), netns=path)
    state = replace(bed.state1, pods=(bed.pod11, bed.pod12, view))

    async def add(manager: KernelManager) -> None:
        await manager.apply(bed.state1)
        await manager.attach_pod(view)

    manage(bed.node1, add)
    run(path, "ip", "addr", "flush", "dev", "eth0", "scope", "global")
    assert applied(bed.node1, state) == ()
    assert " 0% packet loss" in run(path, "ping", "-c1", "-W20", str(bed.pod21.address))

    netns.delete(Path(spare).name)
    netns.create(Path(spare).name)
    # The kernel takes a namespace down by and by, and half of a link is a problem of its own.
    eventually(lambda: veth_index(bed.node1, view.name) is None, within=30)
    (problem,) = applied(bed.node1, state)
    assert (problem.code, problem.why) == (
        "pod-detached",
        f"its link is gone, and {path} may be another container's by now",
    )
    assert "eth0" not in run(spare, "ip", "link")

    async def present(manager: KernelManager) -> frozenset[str]:
        return await manager.present(state.pods)

    eventually(lambda: view.name not in manage(bed.node1, present), within=30)


def refused(bed: Bed, view: PodView) -> KernelError:
    async def attach(manager: KernelManager) -> None:
        await manager.apply(bed.state1)
        await manager.attach_pod(view)

    with pytest.raises(KernelError) as caught:
        manage(bed.node1, attach)
    assert veth_index(bed.node1, view.name) is None
    assert str(view.address) not in run(bed.node1, "ip", "route")
    return caught.value


def test_a_namespace_that_is_not_there_is_a_clear_error(bed: Bed) -> None:
    error = refused(bed, replace(pod(1, 7), netns="/run/netns/nowhere"))
    assert error.code == "no-netns"
    assert str(error) == "there is no namespace /run/netns/nowhere"


def test_a_file_that_is_no_namespace_is_a_clear_error(bed: Bed, tmp_path: Path) -> None:
    file = tmp_path / "plain"
    file.touch()
    error = refused(bed, replace(pod(1, 7), netns=str(file)))
    assert str(error) == f"{file} is not a network namespace"


def test_a_namespace_with_another_eth0_is_a_clear_error(bed: Bed, spare: str) -> None:
    run(spare, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    error = refused(bed, replace(pod(1, 7), netns=spare))
    assert error.code == "netns-in-use"
    assert str(error) == f"namespace {spare} has an interface eth0 already"
    assert "169.254" not in run(spare, "ip", "route")


def test_the_nodes_own_namespace_cannot_be_a_pod(bed: Bed) -> None:
    path = f"/run/netns/{bed.node1}"
    error = refused(bed, replace(pod(1, 7), netns=path))
    assert str(error) == f"{path} is the namespace of the node itself"


def test_a_pod_that_cannot_be_finished_leaves_nothing(bed: Bed, spare: str) -> None:
    # The pod's address is taken by a foreign route of the node: the last step fails.
    view = replace(pod(1, 7), netns=spare)
    run(bed.node1, "ip", "route", "add", "unreachable", f"{view.address}/32")

    async def attach(manager: KernelManager) -> None:
        await manager.apply(bed.state1)
        await manager.attach_pod(view)

    with pytest.raises(KernelError, match="file exists"):
        manage(bed.node1, attach)
    run(bed.node1, "ip", "route", "del", "unreachable", f"{view.address}/32")
    assert veth_index(bed.node1, view.name) is None
    assert "eth0" not in run(spare, "ip", "link")


def test_a_pod_without_a_namespace_gets_one_and_takes_it_along(bed: Bed) -> None:
    path = pods.own_namespace(name("node1"), "web")
    view = replace(pod(1, 8), name="web", netns=path)

    async def add_and_remove(manager: KernelManager) -> str:
        await manager.apply(bed.state1)
        await manager.attach_pod(view)
        pinged = await asyncio.to_thread(run, path, "ping", "-c1", "-W20", str(bed.pod21.address))
        await manager.detach_pod("web")
        await manager.detach_pod("web")
        return pinged

    try:
        assert " 0% packet loss" in manage(bed.node1, add_and_remove)
        assert not netns.exists(path)
        assert veth_index(bed.node1, "web") is None
    finally:
        netns.delete(Path(path).name)


def test_stopping_keeps_pods_and_leaving_removes_all_of_it(bed: Bed) -> None:
    async def stop(manager: KernelManager, *, remove: bool) -> None:
        await manager.apply(bed.state1)
        await manager.close(remove=remove)

    manage(bed.node1, lambda manager: stop(manager, remove=False))
    assert " 0% packet loss" in run(bed.pod11.netns, "ping", "-c1", "-W20", str(bed.pod12.address))
    manage(bed.node1, lambda manager: stop(manager, remove=True))
    assert "proto 109" not in run(bed.node1, "ip", "route") + run(bed.node1, "ip", "-6", "route")
    assert veth_index(bed.node1, "pod11") is None
    assert "10.244" not in run(bed.node1, "ip", "addr")


def hears(bed: Bed, target: PodView, source: str) -> bool:
    """Whether pod12 hears a datagram that pod11 sends with that source, and then an honest one."""
    layer = IPv6 if ":" in source else IP
    to = str(target.address6 if ":" in source else target.address)
    own = str(bed.pod11.address6 if ":" in source else bed.pod11.address)

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("eth0", 0))
            head = Ether(src=mac(bed.pod11.netns, "eth0"), dst=mac(bed.node1, veth_name("pod11")))
            for address, said in ((source, b"lie"), (own, b"truth")):
                wire.send(bytes(head / layer(src=address, dst=to) / UDP(dport=5353) / Raw(said)))

    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with netns.run_in(target.netns, socket.socket, family, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(20)
        receiver.bind((to, 5353))
        netns.run_in(bed.pod11.netns, send)
        return receiver.recv(64) == b"lie"


def mac(where: str, link: str) -> str:
    return str(json.loads(run(where, "ip", "-j", "link", "show", "dev", link))[0]["address"])


def test_without_a_packet_filter_the_routes_refuse_forged_ipv4_sources(bed: Bed) -> None:
    run(bed.pod11.netns, "ping", "-c1", "-W20", str(bed.pod12.address))
    for source in (bed.pod21.address, bed.state1.address, "203.0.113.9"):
        assert not hears(bed, bed.pod12, str(source))


def test_without_a_packet_filter_nothing_refuses_forged_ipv6_sources_within_the_node(
    bed: Bed,
) -> None:
    """Not a promise: it is what `guard` in the status tells, and why it does."""
    run(bed.pod11.netns, "ping", "-c1", "-W20", str(bed.pod12.address6))
    assert hears(bed, bed.pod12, str(bed.pod21.address6))


@pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft")
def test_with_one_they_are_refused_and_nothing_of_it_is_left_when_the_node_leaves(
    bed: Bed,
) -> None:
    async def guarded(manager: KernelManager) -> None:
        await manager.apply(bed.state1)
        assert manager.guard.by == "nft"
        assert not hears(bed, bed.pod12, str(bed.pod21.address6))
        await manager.count()
        assert manager.guard.drops["spoofed"] == 1
        await manager.close(remove=True)

    manage(bed.node1, guarded, Firewall())
    assert run(bed.node1, "nft", "list", "ruleset") == ""
