from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from node.kernel.errors import KernelError
from node.kernel.manager import KernelManager
from node.kernel.model import KernelState, Link, queue_name, veth_name
from node.kernel.nft import Firewall
from node.kernel.overlap import HostRoute
from node.kernel.reconcile import AddRoute
from node.kernel.watch import ANYTHING, News
from overlay.attachment import Attachment, Rate
from overlay.views import Problem
from tests.support.keeping import SETTINGS, Bench, FakeThread
from tests.support.views import pod_view

POD = pod_view(1, 1, netns="/run/netns/pod11")
VETH = veth_name("pod11")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_pods_are_attached_and_routed(bench: Bench) -> None:
    assert bench.apply(POD) == ()
    assert VETH in bench.netlink.kernel.links
    assert {route.link for route in bench.netlink.kernel.routes.values()} == {"", "muslin0", VETH}


def test_nothing_is_read_while_neither_wish_nor_kernel_changes(bench: Bench) -> None:
    bench.apply(POD)
    before = bench.netlink.reads
    bench.apply(POD)
    assert bench.netlink.reads == before
    bench.apply(POD, news=News(node=True))
    assert bench.netlink.reads > before


def test_a_pod_in_another_namespace_is_a_changed_wish(bench: Bench) -> None:
    bench.apply(POD)
    bench.netlink.namespaces = {"/run/netns/other"}
    assert bench.apply(replace(POD, netns="/run/netns/other")) == ()
    (problem,) = bench.apply(POD)
    assert problem.code == "pod-lost"


def test_a_problem_is_told_and_tried_again(bench: Bench) -> None:
    bench.netlink.namespaces.clear()
    (problem,) = bench.apply(POD)
    assert problem == Problem(
        "pod-lost",
        "pod pod11 has lost its namespace",
        f"there is no namespace {POD.netns}",
        "muslin pod del pod11, or muslin ipam check --fix",
    )
    bench.netlink.namespaces.add(POD.netns)
    assert bench.apply(POD) == ()


def test_a_refused_change_does_not_stop_the_others(bench: Bench) -> None:
    bench.netlink.refuse = lambda change: "10.244.0.0/16 dev" in str(change)
    (problem,) = bench.apply(POD)
    assert problem == Problem(
        "kernel-refused",
        "the kernel lacks 1 part of the network",
        "add route 10.244.0.0/16 dev muslin0: file exists",
        "remove the other route",
    )
    assert any(route.link == VETH for route in bench.netlink.kernel.routes.values())


def test_a_kernel_that_does_not_answer_is_a_problem_not_an_exception(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> KernelState:
        raise KernelError("reading the kernel's state: timed out")

    monkeypatch.setattr(bench.netlink, "read", silent)
    (problem,) = bench.apply()
    assert problem.code == "kernel-silent"


def test_what_a_silent_kernel_was_not_told_it_is_told_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> KernelState:
        raise KernelError("reading the kernel's state: timed out")

    bench.apply()
    with monkeypatch.context() as patch:
        patch.setattr(bench.netlink, "read", silent)
        assert [problem.code for problem in bench.apply(POD)] == ["kernel-silent"]
    assert bench.apply(POD) == ()  # the wish is the same, and the kernel announced nothing
    assert VETH in bench.netlink.kernel.links


def test_rules_that_were_refused_are_tried_again(bench: Bench, tmp_path: Path) -> None:
    mended, tool = tmp_path / "mended", tmp_path / "nft"
    tool.write_text(f'#!/bin/sh\n[ -e {mended} ] || {{ echo "no memory" >&2; exit 1; }}\n')
    tool.chmod(0o755)
    thread: Any = FakeThread(bench.netlink)
    bench.manager = KernelManager(SETTINGS, thread, thread, Firewall(str(tool)))
    bench.apply(POD)
    refused = bench.manager.guard.why
    mended.touch()
    bench.apply(POD)
    assert (refused, bench.manager.guard.why) == ("no memory", "")


def test_a_removed_tun_is_a_problem(bench: Bench) -> None:
    del bench.netlink.kernel.links["muslin0"]
    assert [problem.code for problem in bench.apply()] == ["tun-gone"]


def test_a_pod_gone_from_the_snapshot_is_disconnected(bench: Bench) -> None:
    bench.apply(POD)
    assert bench.apply() == ()
    assert VETH not in bench.netlink.kernel.links


def test_an_attached_pod_is_routed_when_the_call_returns(bench: Bench) -> None:
    bench.apply()
    asyncio.run(bench.manager.attach_pod(POD))
    assert any(route.link == VETH for route in bench.netlink.kernel.routes.values())
    asyncio.run(bench.manager.detach_pod("pod11"))
    assert VETH not in bench.netlink.kernel.links


@pytest.mark.parametrize("step", ["namespace", "route"])
def test_a_pod_that_cannot_be_attached_leaves_nothing(bench: Bench, step: str) -> None:
    bench.apply()
    if step == "namespace":
        bench.netlink.namespaces.clear()
    bench.netlink.refuse = lambda change: isinstance(change, AddRoute) and VETH in str(change)
    with pytest.raises(KernelError):
        asyncio.run(bench.manager.attach_pod(POD))
    bench.netlink.refuse = lambda _: False
    assert VETH not in bench.netlink.kernel.links
    assert bench.apply() == ()


def test_attaching_is_not_refused_for_what_is_wrong_elsewhere(bench: Bench) -> None:
    bench.netlink.refuse = lambda change: "10.244.0.0/16 dev" in str(change)
    bench.apply()
    asyncio.run(bench.manager.attach_pod(POD))
    assert VETH in bench.netlink.kernel.links


def test_stopping_leaves_and_leaving_removes(bench: Bench) -> None:
    bench.apply(POD)
    asyncio.run(bench.manager.close(remove=False))
    assert VETH in bench.netlink.kernel.links
    asyncio.run(bench.manager.close(remove=True))
    assert set(bench.netlink.kernel.links) == {"muslin0"}
    assert not bench.netlink.kernel.routes
    assert not bench.netlink.kernel.addresses


def test_a_pod_is_present_while_it_has_a_namespace_or_a_veth(bench: Bench) -> None:
    bench.apply(POD)

    def present() -> frozenset[str]:
        return asyncio.run(bench.manager.present([POD]))

    assert present() == {"pod11"}
    bench.netlink.namespaces.clear()  # its name; processes in it may live on
    assert present() == {"pod11"}
    del bench.netlink.kernel.links[VETH]
    assert present() == set()
    bench.netlink.namespaces.add(POD.netns)
    assert present() == {"pod11"}


def test_a_veth_of_no_pod_is_a_stray(bench: Bench) -> None:
    bench.apply(POD)
    assert asyncio.run(bench.manager.strays()) == ()
    bench.netlink.kernel.links[veth_name("old")] = Link(veth_name("old"), alias="old")
    assert asyncio.run(bench.manager.strays()) == ("old",)


LAN = ip_network("192.168.7.0/24")


def test_an_outside_network_comes_and_goes(bench: Bench) -> None:
    assert bench.apply(outside=(LAN,)) == ()
    assert LAN in bench.routed()
    assert bench.apply() == ()
    assert LAN not in bench.routed()


def test_a_network_that_the_machine_reaches_by_itself_stays_as_it_is(bench: Bench) -> None:
    bench.netlink.host = [HostRoute(ip_network("192.168.7.128/25"), "eth1")]
    (problem,) = bench.apply(POD, outside=(LAN,))
    assert problem.code == "route-overlaps-host"
    assert (str(LAN) in problem.what, "192.168.7.128/25 dev eth1" in problem.why) == (True, True)
    assert LAN not in bench.routed()
    bench.netlink.namespaces.add("/run/netns/pod12")
    other = pod_view(1, 2, netns="/run/netns/pod12")
    asyncio.run(bench.manager.attach_pod(other))
    assert LAN not in bench.routed(), "a change of pods brought it"
    bench.netlink.host = []
    assert bench.apply(POD, other, outside=(LAN,)) == ()
    assert LAN in bench.routed()


def test_the_packet_filter_follows_what_this_node_advertises(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []
    monkeypatch.setattr(Firewall, "hold", lambda _, rules: bool(held.append(rules)))
    bench.apply(POD)
    bench.apply(POD, own_outside=(LAN,))
    assert ["192.168.7.0/24" in rules for rules in held] == [False, True]


def test_a_kernel_that_cannot_translate_checks_its_pods_all_the_same(
    bench: Bench, tmp_path: Path
) -> None:
    tool = tmp_path / "nft"
    tool.write_text(
        "#!/bin/sh\n"
        'test "$1" = -f || exit 0\n'
        f"cat > {tmp_path}/asked\n"
        f'grep -q "type nat" {tmp_path}/asked && {{ echo "Error: no NAT" >&2; exit 1; }}\n'
        f"mv {tmp_path}/asked {tmp_path}/taken\n"
    )
    tool.chmod(0o700)
    thread: Any = FakeThread(bench.netlink)
    bench.manager = KernelManager(SETTINGS, thread, thread, Firewall(str(tool)))
    bench.manager.set_masquerade(True)
    (problem,) = bench.apply(POD)
    assert (problem.code, problem.why) == ("egress-off", "Error: no NAT")
    assert f'add element inet muslin links {{ "{VETH}" }}' in (tmp_path / "taken").read_text()
    assert bench.manager.guard.by == "nft"


def test_a_pod_that_was_handed_over_and_lost_is_named_and_not_made_again(bench: Bench) -> None:
    handed = replace(POD, netns="", attachment=Attachment("e1", handed=True))
    bench.apply()
    asyncio.run(bench.manager.attach_pod(handed))
    assert VETH in bench.netlink.kernel.links
    assert bench.apply(handed) == ()
    assert asyncio.run(bench.manager.present([handed])) == {"pod11"}
    del bench.netlink.kernel.links[VETH]
    (problem,) = bench.apply(handed, news=News(node=True))
    assert (problem.code, problem.what) == ("pod-lost", "pod pod11 has lost its link")
    assert asyncio.run(bench.manager.present([handed])) == set()
    with pytest.raises(KernelError):
        asyncio.run(bench.manager.check_pod(handed))


def test_a_check_connects_what_is_not_and_takes_nothing_away(bench: Bench) -> None:
    bench.apply(POD)
    del bench.netlink.kernel.links[VETH]
    asyncio.run(bench.manager.check_pod(POD))
    assert VETH in bench.netlink.kernel.links
    bench.netlink.refuse = lambda change: VETH in str(change)
    bench.netlink.kernel.routes.clear()
    with pytest.raises(KernelError):
        asyncio.run(bench.manager.check_pod(POD))
    assert VETH in bench.netlink.kernel.links


def test_what_somebody_else_changed_is_put_right_and_told(bench: Bench) -> None:
    first = bench.look(POD)
    assert first.repaired == (), "what is made for the first time is no repair"
    assert bench.look(POD, news=News(node=True)).repaired == ()
    kernel = bench.netlink.kernel
    wanted = kernel.state()
    kernel.routes = {key: one for key, one in kernel.routes.items() if one.link != "muslin0"}
    kernel.neighbours.clear()
    kernel.links["muslin0"] = replace(kernel.links["muslin0"], up=False)
    told = bench.look(POD, news=News(node=True)).repaired
    assert "configure link muslin0" in told
    assert "add route 10.244.0.0/16 dev muslin0" in told
    assert f"add neighbour 10.244.1.2 on {VETH}" in told
    assert kernel.state() == wanted


def test_what_is_wished_for_anew_is_no_repair(bench: Bench) -> None:
    bench.apply(POD)
    bench.netlink.namespaces.add("/run/netns/pod12")
    other = pod_view(1, 2, netns="/run/netns/pod12")
    assert bench.look(POD, other, outside=(LAN,)).repaired == ()
    assert bench.look(other).repaired == ()
    asyncio.run(bench.manager.attach_pod(POD))
    assert bench.look(POD, other, news=ANYTHING).repaired == ()


def test_the_link_that_a_limited_pod_waits_at_is_made_whole(bench: Bench) -> None:
    """What it lacked would look like somebody's damage to the look that follows."""
    limited = replace(POD, attachment=Attachment(egress=Rate(10_000_000, 8)))
    bench.apply()
    asyncio.run(bench.manager.attach_pod(limited))
    assert bench.netlink.kernel.links[queue_name("pod11")].alias == "pod11"
    assert bench.look(limited, news=ANYTHING).repaired == ()


def test_a_pod_whose_veth_was_removed_is_connected_again(bench: Bench) -> None:
    bench.apply(POD)
    bench.netlink.kernel.links.pop(VETH)
    looked = bench.look(POD, news=News(node=True))
    assert (looked.problems, "connect pod pod11" in looked.repaired) == ((), True)
    assert VETH in bench.netlink.kernel.links


def test_an_interface_of_another_kind_with_our_name_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.keeping._made", lambda link: replace(link, kind="dummy"))
    before = dict(bench.netlink.kernel.links)
    assert [problem.code for problem in bench.apply()] == ["tun-gone"]
    assert bench.netlink.kernel.links == before


def test_only_pods_of_which_there_is_news_are_looked_into(bench: Bench) -> None:
    bench.netlink.namespaces.add("/run/netns/pod12")
    other = pod_view(1, 2, netns="/run/netns/pod12")
    bench.netlink.numbers = {VETH: 4, veth_name("pod12"): 5}
    bench.apply(POD, other)
    assert bench.netlink.mended == [], "they were just connected"
    assert bench.manager.namespaces == {4, 5}
    bench.netlink.lacking["pod12"] = ["add address 10.244.1.3/32 on eth0"]
    told = bench.look(POD, other, news=News(inside=frozenset({5}))).repaired
    assert bench.netlink.mended == [("pod12", False)]
    assert told == ("add address 10.244.1.3/32 on eth0 in pod pod12",)
