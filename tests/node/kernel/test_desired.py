from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from node.kernel.desired import (
    FALLBACK_METRIC,
    GSO_MAX_SIZE,
    TX_QUEUE,
    Legs,
    desired_pod_state,
    desired_state,
)
from node.kernel.model import (
    GATEWAY,
    GATEWAY6,
    KernelSettings,
    Link,
    Neighbour,
    Route,
    veth_macs,
    veth_name,
)
from overlay.attachment import Attachment
from overlay.views import PodView
from tests.support.kernel import ModelKernel, held, route
from tests.support.views import node_snapshot, pod_view

SETTINGS = KernelSettings("muslin0", 1500)
POD = pod_view(1, 1, netns="/run/netns/pod11")
VETH = veth_name("pod11")
MACS = veth_macs("pod11")


def test_a_node_with_a_pod_is_wired_as_the_picture_says() -> None:
    state = desired_state(node_snapshot(1, (POD, pod_view(2, 1, local=False))), SETTINGS)
    assert state.links == {
        "muslin0": Link(
            "muslin0", mtu=1500, gso_max_size=GSO_MAX_SIZE, txqueuelen=TX_QUEUE, master=0
        ),
        VETH: Link(VETH, True, 1500, GSO_MAX_SIZE, alias="pod11", mac=MACS.host, master=0),
    }
    assert state.addresses == {
        held("muslin0", "10.244.1.1/32"),
        held("muslin0", "fd00:0:0:1::1/128"),
        held(VETH, "169.254.1.1/32"),
        held(VETH, "fe80::1/64"),
    }
    assert state.routes == {
        route("10.244.0.0/16", "muslin0", source="10.244.1.1"),
        route("10.244.0.0/16", metric=FALLBACK_METRIC),
        route("10.244.1.0/24"),
        route("10.244.1.2/32", VETH, source="10.244.1.1"),
        route("10.244.1.2/32", VETH, metric=FALLBACK_METRIC),
        route("fd00::/48", "muslin0", source="fd00:0:0:1::1", metric=1024),
        route("fd00::/48", metric=FALLBACK_METRIC),
        route("fd00:0:0:1::/64", metric=1024),
        route("fd00:0:0:1::2/128", VETH, source="fd00:0:0:1::1", metric=1024),
        route("fd00:0:0:1::2/128", VETH, metric=FALLBACK_METRIC),
    }


def test_both_families_are_forwarded_and_links_find_no_addresses_of_their_own() -> None:
    sysctls = desired_state(node_snapshot(1, (POD,)), SETTINGS).sysctls
    assert sysctls["net/ipv4/ip_forward"] == "1"
    assert sysctls["net/ipv6/conf/all/forwarding"] == "1"
    for link in ("muslin0", VETH):
        assert sysctls[f"net/ipv6/conf/{link}/disable_ipv6"] == "0"
        assert sysctls[f"net/ipv6/conf/{link}/addr_gen_mode"] == "1"
        assert sysctls[f"net/ipv6/conf/{link}/accept_dad"] == "0"
        assert sysctls[f"net/ipv6/conf/{link}/accept_ra"] == "0"
    assert sysctls["net/ipv4/conf/muslin0/accept_local"] == "1"
    assert f"net/ipv4/conf/{VETH}/accept_local" not in sysctls


def test_what_a_pod_says_about_the_network_is_not_believed() -> None:
    sysctls = desired_state(node_snapshot(1, (POD,)), SETTINGS).sysctls
    assert sysctls[f"net/ipv4/conf/{VETH}/rp_filter"] == "1"
    assert sysctls["net/ipv4/conf/muslin0/rp_filter"] == "0"
    for setting in ("ipv4/conf/{}/accept_redirects", "ipv4/conf/{}/proxy_arp"):
        assert sysctls["net/" + setting.format(VETH)] == "0"
    for setting in ("accept_redirects", "accept_ra", "proxy_ndp"):
        assert sysctls[f"net/ipv6/conf/{VETH}/{setting}"] == "0"


def test_a_cluster_without_ipv6_leaves_the_machines_ipv6_alone() -> None:
    alone = replace(
        node_snapshot(1, (replace(POD, address6=None),)),
        cidr6=None,
        address6=None,
        own_prefixes=(ip_network("10.244.1.0/24"),),
    )
    state = desired_state(alone, SETTINGS)
    assert {prefix.version for prefix in (route.prefix for route in state.routes)} == {4}
    assert {entry.address.version for entry in state.addresses} == {4}
    assert "net/ipv6/conf/all/forwarding" not in state.sysctls
    assert state.sysctls["net/ipv6/conf/muslin0/disable_ipv6"] == "1"


def test_a_node_that_has_the_whole_range_leads_nothing_of_it_to_the_tun() -> None:
    whole = (ip_network("10.244.0.0/16"), ip_network("fd00::/48"))
    state = desired_state(replace(node_snapshot(1, (POD,)), own_prefixes=whole), SETTINGS)
    keys = [one.key for one in state.routes]
    assert len(keys) == len(set(keys)), "the kernel holds one route of a prefix and a metric"
    assert state.routes >= {route("10.244.0.0/16"), route("fd00::/48", metric=1024)}
    assert not [one for one in state.routes if one.link == "muslin0"]


def test_before_the_first_block_the_range_is_unreachable_and_nothing_else() -> None:
    early = replace(node_snapshot(1), address=None, address6=None, own_prefixes=())
    state = desired_state(early, SETTINGS)
    assert state.addresses == frozenset()
    assert state.routes == {
        Route(ip_network("10.244.0.0/16"), metric=FALLBACK_METRIC),
        Route(ip_network("fd00::/48"), metric=FALLBACK_METRIC),
    }
    assert set(state.links) == {"muslin0"}


def test_a_pod_has_its_addresses_and_one_way_out_per_family() -> None:
    assert POD.address6 is not None
    state = desired_pod_state("pod11", [POD.address, POD.address6], 1400)
    assert state.links["eth0"] == Link("eth0", True, 1400, GSO_MAX_SIZE, mac=MACS.pod)
    assert state.links["lo"] == Link("lo")
    assert state.addresses == {
        held("eth0", "10.244.1.2/32"),
        held("eth0", "fd00:0:0:1::2/128"),
        held("eth0", "fe80::2/64"),
    }
    assert state.sysctls["net/ipv6/conf/eth0/addr_gen_mode"] == "1", "no other link-local address"
    assert {(str(entry.prefix), str(entry.gateway)) for entry in state.routes} == {
        ("169.254.1.1/32", "None"),
        ("0.0.0.0/0", "169.254.1.1"),
        ("::/0", "fe80::1"),
    }


def test_the_two_ends_of_a_veth_know_each_other() -> None:
    assert POD.address6 is not None
    outside = desired_state(node_snapshot(1, (POD,)), SETTINGS).neighbours
    assert outside == {
        Neighbour(VETH, POD.address, MACS.pod),
        Neighbour(VETH, POD.address6, MACS.pod),
    }
    inside = desired_pod_state("pod11", [POD.address, POD.address6], 1500).neighbours
    assert inside == {
        Neighbour("eth0", GATEWAY, MACS.host),
        Neighbour("eth0", GATEWAY6, MACS.host),
    }


def test_of_a_pod_that_its_runtime_configures_only_the_nodes_end_is_wished_for() -> None:
    handed = replace(POD, attachment=Attachment(handed=True))
    state = desired_state(node_snapshot(1, (handed,)), SETTINGS)
    plain = desired_state(node_snapshot(1, (POD,)), SETTINGS)
    assert state == replace(plain, neighbours=frozenset(), rules=state.rules)


def test_a_pod_without_ipv6_gets_no_ipv6_route() -> None:
    state = desired_pod_state("pod11", [POD.address], 1500)
    assert {entry.prefix.version for entry in state.routes} == {4}
    assert not state.sysctls


def test_the_desired_state_obeys_the_kernels_own_rules() -> None:
    from node.kernel.reconcile import reconcile

    for desired in (
        desired_state(node_snapshot(1, (POD,)), SETTINGS),
        desired_pod_state("pod11", [POD.address], 1500),
    ):
        empty = replace(
            desired,
            links={name: Link(name, up=False) for name in desired.links},
            addresses=frozenset(),
            routes=frozenset(),
            neighbours=frozenset(),
        )
        kernel = ModelKernel(empty)
        for change in reconcile(desired, kernel.state()):
            kernel.apply(change)
        assert kernel.state().routes == desired.routes


def test_networks_that_others_advertise_are_routed_like_the_cluster() -> None:
    outside = (ip_network("192.168.7.0/24"), ip_network("2001:db8:7::/48"))
    bare = desired_state(node_snapshot(1), SETTINGS)
    state = desired_state(replace(node_snapshot(1), outside=outside), SETTINGS)
    assert state.routes - bare.routes == {
        route("192.168.7.0/24", "muslin0", source="10.244.1.1"),
        route("192.168.7.0/24", metric=FALLBACK_METRIC),
        route("2001:db8:7::/48", "muslin0", source="fd00:0:0:1::1", metric=1024),
        route("2001:db8:7::/48", metric=FALLBACK_METRIC),
    }


def test_what_a_node_advertises_itself_it_reaches_already() -> None:
    own = replace(node_snapshot(1), own_outside=(ip_network("192.168.7.0/24"),))
    state, plain = desired_state(own, SETTINGS), desired_state(node_snapshot(1), SETTINGS)
    assert replace(state, rules=plain.rules) == plain


def test_without_an_address_of_its_own_a_node_has_no_way_to_other_networks() -> None:
    outside = (ip_network("2001:db8:7::/48"), ip_network("192.168.7.0/24"))
    single = replace(node_snapshot(1), cidr6=None, address6=None, outside=outside)
    routed = {one.prefix for one in desired_state(single, SETTINGS).routes}
    assert not routed & {outside[0]}
    assert outside[1] in routed


def test_an_interface_beside_another_way_out_brings_none_of_that_family() -> None:
    held_by = [POD.address, POD.address6]
    state = desired_pod_state("pod11", held_by, 1500, link="net1", elsewhere={4})
    assert {str(entry.prefix) for entry in state.routes} == {"::/0"}
    assert {entry.link for entry in state.addresses | state.routes | state.neighbours} == {"net1"}
    assert state.sysctls["net/ipv6/conf/net1/accept_dad"] == "0"
    neither = desired_pod_state("pod11", held_by, 1500, link="net1", elsewhere={4, 6})
    assert not neither.routes
    assert neither.addresses == state.addresses


def test_a_pods_part_is_made_once_and_forgotten_with_the_pod() -> None:
    legs, name = Legs(), veth_name(POD.name)

    def link(*pods: PodView) -> Link | None:
        return desired_state(node_snapshot(1, pods), SETTINGS, legs).links.get(name)

    first = link(POD)
    assert link(POD) is first
    assert link() is None
    again = link(POD)
    assert again == first
    assert again is not first
