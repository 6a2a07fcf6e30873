from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from node.kernel.model import (
    KernelState,
    Limit,
    Link,
    LinkAddress,
    Neighbour,
    Route,
    queue_name,
    veth_name,
)
from node.kernel.reconcile import (
    FORWARDING6,
    AddAddress,
    AddNeighbour,
    AddRoute,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    RenameLink,
    SetLink,
    SetSysctl,
    reconcile,
    repairs,
)
from tests.support.kernel import ModelKernel, held, route

LINKS = ("muslin0", veth_name("a"), veth_name("b"), queue_name("a"))
ADDRESSES = ("10.1.0.1/32", "10.1.0.2/32", "fd00::1/128", "fd00::2/128")
KNOWN = Neighbour("musx", ip_address("10.0.0.1"), "02:00:00:00:00:01")
PREFIXES = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "fd00::/48", "fd00::3/128")


@st.composite
def states(draw: st.DrawFn) -> KernelState:
    """A state that the kernel could be in."""
    names = draw(st.sets(st.sampled_from(LINKS), max_size=4))
    links = {
        name: Link(
            name,
            up=draw(st.booleans()),
            mtu=draw(st.sampled_from([1400, 1500])),
            gso_max_size=draw(st.sampled_from([62000, 65536])),
            txqueuelen=draw(st.sampled_from([256, 500])),
            alias=draw(st.sampled_from(["a", "b"])),
        )
        for name in sorted(names)
    }
    addresses: set[LinkAddress] = set()
    routes: dict[object, Route] = {}
    if links:
        places = st.tuples(st.sampled_from(sorted(links)), st.sampled_from(ADDRESSES))
        addresses = {held(*place) for place in draw(st.lists(places, max_size=4))}
        sources = ["", *(str(entry.address.ip) for entry in addresses)]
        for prefix in draw(st.sets(st.sampled_from(PREFIXES))):
            link = draw(st.sampled_from(["", *sorted(links)]))
            source = draw(st.sampled_from(sources)) if link else ""
            made = route(prefix, link, source=source, metric=draw(st.sampled_from([0, 9])))
            if not made.source or made.source.version == made.prefix.version:
                routes[made.key] = made
    sysctls = draw(st.dictionaries(st.sampled_from(["net/a", "net/b"]), st.sampled_from("01")))
    stations = st.tuples(st.sampled_from(sorted(links)), st.sampled_from(ADDRESSES[:2]))
    macs = st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"])
    known = draw(st.dictionaries(stations, macs, max_size=3)) if links else {}
    neighbours = {
        Neighbour(link, ip_interface(text).ip, mac)
        for (link, text), mac in known.items()
        if links[link].up
    }
    return KernelState(
        links,
        frozenset(addresses),
        frozenset(routes.values()),
        frozenset(neighbours),
        sysctls,
        limits=frozenset(
            Limit(veth_name("a"), queue, draw(st.sampled_from([1000, 2000])), 9, 99)
            for queue in (veth_name("a"), queue_name("a"))
            if {veth_name("a"), queue} <= links.keys() and draw(st.booleans())
        ),
    )


@given(states(), states())
@settings(max_examples=100)
def test_the_changes_lead_to_the_desired_state(desired: KernelState, actual: KernelState) -> None:
    """The kernel refuses none of them. Making links is not reconcile's part."""
    assume(desired.links.keys() <= actual.links.keys())
    kernel = ModelKernel(actual)
    for _ in range(2):
        # What vanishes along with a removed link or address is put right by the second round.
        for change in reconcile(desired, kernel.state()):
            kernel.apply(change)
    assert reconcile(desired, kernel.state()) == []
    assert kernel.state().addresses == desired.addresses
    assert kernel.state().routes == desired.routes
    assert kernel.state().neighbours == desired.neighbours
    assert kernel.state().limits == desired.limits


@given(states(), states())
@settings(max_examples=40)
def test_what_belongs_to_a_missing_link_waits(desired: KernelState, actual: KernelState) -> None:
    missing = desired.links.keys() - actual.links.keys()
    for change in reconcile(desired, actual):
        match change:
            case SetLink(Link(name=name)) | AddAddress(LinkAddress(link=name)):
                assert name not in missing
            case AddRoute(Route(link=name)) | AddNeighbour(Neighbour(link=name)):
                assert name not in missing


@given(states())
@settings(max_examples=40)
def test_nothing_is_done_when_all_is_well(state: KernelState) -> None:
    assert reconcile(state, state) == []


@given(states(), states())
@settings(max_examples=40)
def test_without_removal_nothing_is_lost(desired: KernelState, actual: KernelState) -> None:
    for change in reconcile(desired, actual, remove=False):
        assert not isinstance(change, DeleteLink | DeleteAddress | DeleteRoute | DeleteNeighbour)


def test_a_route_is_replaced_in_place_not_removed_and_added() -> None:
    links = {"muslin0": Link("muslin0")}
    old, new = route("10.0.0.0/8"), route("10.0.0.0/8", "muslin0")
    desired = KernelState(links, routes=frozenset({new}))
    actual = KernelState(links, routes=frozenset({old}))
    assert reconcile(desired, actual) == [AddRoute(new, replaces=old)]


def test_a_new_address_comes_before_its_routes_and_the_old_goes_after_them() -> None:
    links = {"muslin0": Link("muslin0")}
    before = KernelState(
        links,
        frozenset({held("muslin0", "10.1.0.1/32")}),
        frozenset({route("10.0.0.0/8", "muslin0", source="10.1.0.1")}),
    )
    after = KernelState(
        links,
        frozenset({held("muslin0", "10.1.0.2/32")}),
        frozenset({route("10.0.0.0/8", "muslin0", source="10.1.0.2")}),
    )
    kinds = [type(change) for change in reconcile(after, before)]
    assert kinds == [AddAddress, AddRoute, DeleteAddress]


def test_settings_come_before_a_link_comes_up() -> None:
    desired = KernelState({"muslin0": Link("muslin0")}, sysctls={"net/x": "1"})
    actual = KernelState({"muslin0": Link("muslin0", up=False)}, sysctls={"net/x": "0"})
    assert reconcile(desired, actual) == [SetSysctl("net/x", "1"), SetLink(Link("muslin0"))]


def test_only_pods_veths_are_deleted_and_their_routes_left_to_the_kernel() -> None:
    veth = veth_name("a")
    actual = KernelState(
        {"muslin0": Link("muslin0"), veth: Link(veth)},
        frozenset({held(veth, "169.254.1.1/32")}),
        frozenset({route("10.1.0.2/32", veth)}),
    )
    assert reconcile(KernelState(), actual) == [DeleteLink(veth)]


def test_settings_that_do_not_exist_are_left_alone() -> None:
    assert reconcile(KernelState(sysctls={"net/ipv6/x": "1"}), KernelState()) == []


def test_links_with_advertised_routes_keep_them_when_forwarding_is_switched_on() -> None:
    desired = KernelState({"muslin0": Link("muslin0")}, sysctls={FORWARDING6: "1"})
    actual = KernelState(
        {"muslin0": Link("muslin0")},
        sysctls={FORWARDING6: "0"},
        advertised_links=frozenset({"wan0", "muslin0"}),
    )
    assert reconcile(desired, actual) == [
        SetSysctl("net/ipv6/conf/wan0/accept_ra", "2"),
        SetSysctl(FORWARDING6, "1"),
    ]
    on = replace(actual, sysctls={FORWARDING6: "1"})
    assert reconcile(desired, on) == []


def test_changes_read_as_what_is_being_done() -> None:
    assert [
        str(change)
        for change in (
            DeleteLink("musx"),
            SetSysctl("net/x", "1"),
            SetLink(Link("musx")),
            AddAddress(held("musx", "10.0.0.1/32")),
            DeleteAddress(held("musx", "10.0.0.1/32")),
            AddRoute(route("10.0.0.0/8", "musx")),
            DeleteRoute(route("10.0.0.0/8")),
            AddNeighbour(KNOWN),
            DeleteNeighbour(KNOWN),
            RenameLink("gone0", "musx"),
        )
    ] == [
        "remove link musx",
        "set net/x to 1",
        "configure link musx",
        "add address 10.0.0.1/32 on musx",
        "remove address 10.0.0.1/32 on musx",
        "add route 10.0.0.0/8 dev musx",
        "remove unreachable 10.0.0.0/8",
        "add neighbour 10.0.0.1 on musx",
        "remove neighbour 10.0.0.1 on musx",
        "rename link gone0 to musx",
    ]


def test_a_neighbour_with_another_station_is_corrected_in_one_step() -> None:
    links = {"musx": Link("musx")}
    moved = KNOWN._replace(mac="02:00:00:00:00:09")
    actual = KernelState(links, neighbours=frozenset({moved}))
    desired = KernelState(links, neighbours=frozenset({KNOWN}))
    assert reconcile(desired, actual) == [AddNeighbour(KNOWN)]
    assert reconcile(KernelState(links), actual) == [DeleteNeighbour(moved)]


@given(states(), states())
@settings(max_examples=60)
def test_what_a_changed_wish_needs_is_no_repair(desired: KernelState, before: KernelState) -> None:
    """As long as the kernel is as it was wished for. Links are made elsewhere, and before."""
    assume(desired.links.keys() <= before.links.keys())
    assert repairs(reconcile(desired, before), desired, before) == []


@given(states(), states())
@settings(max_examples=60)
def test_with_the_same_wish_all_that_is_needed_is_a_repair(
    desired: KernelState, actual: KernelState
) -> None:
    changes = reconcile(desired, actual)
    assert repairs(changes, desired, desired) == changes


def test_a_link_that_was_renamed_gets_its_name_back_before_anything_else() -> None:
    present = Link("musx", up=False)
    actual = KernelState({"musx": present}, renamed={"musx": "gone0"})
    changes = reconcile(KernelState({"musx": Link("musx")}), actual)
    assert changes == [RenameLink("gone0", "musx"), SetLink(Link("musx"))]


def test_a_link_that_was_made_a_port_of_a_bridge_is_taken_out() -> None:
    wanted = Link("musx", master=0)
    actual = KernelState({"musx": Link("musx", master=7)})
    assert reconcile(KernelState({"musx": wanted}), actual) == [SetLink(wanted)]


@given(states(), states(), st.sets(st.sampled_from(["eth0", "docker0", "tun9"])))
@settings(max_examples=60)
def test_nothing_that_is_not_ours_is_ever_named_by_a_change(
    desired: KernelState, actual: KernelState, foreign: set[str]
) -> None:
    """Foreign links take no part: what is read leaves them out, and what is wished for too."""
    ours = desired.links.keys() | actual.links.keys()
    told = " ".join(str(change) for change in reconcile(desired, actual))
    assert not any(name in told for name in foreign)
    for change in reconcile(desired, actual):
        match change:
            case SetLink(Link(name=name)) | DeleteLink(name):
                assert name in ours
            case AddAddress(one) | DeleteAddress(one) | AddNeighbour(one) | DeleteNeighbour(one):
                assert one.link in ours
            case AddRoute(made) | DeleteRoute(made):
                assert made in desired.routes | actual.routes
