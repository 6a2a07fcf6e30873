"""Tests of node.doctor: who is odd, and from what."""

from __future__ import annotations

from node.doctor import LONGEST_SHOWN, Examined, Finding, examine
from node.machine import MachineFacts

USUAL: MachineFacts = {
    "version": "0.1.0",
    "mtu": 1500,
    "underlay_mtu": 1500,
    "offloads": ["tso", "uso"],
    "guard": "nft",
    "ip_forward": 1,
    "ip6_forward": 1,
    "crossed": [],
    "problems": [],
}


def cluster(*changes: MachineFacts | None, ahead: tuple[float, ...] = ()) -> dict[str, Finding]:
    """Findings about nodes that differ from the usual ones by these; the first is the local one."""
    ahead = ahead or (0.0,) * len(changes)
    nodes = [
        Examined(
            f"node{n}",
            n == 1,
            None if change is None else USUAL | change,
            f"node{n} (dead) does not answer" if change is None else "",
            ahead[n - 1],
        )
        for n, change in enumerate(changes, start=1)
    ]
    return {finding.check: finding for finding in examine(nodes)}


def odd(found: dict[str, Finding]) -> dict[str, tuple[str, ...]]:
    return {check: one.nodes for check, one in found.items() if one.state == "odd"}


def test_alike_machines_are_well() -> None:
    found = cluster({}, {}, {})
    assert {one.state for one in found.values()} == {"ok"}
    assert found["version"].what == "0.1.0"
    assert found["answers"].what == "3 of 3 nodes"


def test_one_node_alone_is_well() -> None:
    assert odd(cluster({})) == {}


def test_the_odd_one_is_the_one_that_differs_from_most_wherever_one_asks() -> None:
    assert odd(cluster({}, {"version": "0.2.0"}, {})) == {"version": ("node2",)}
    assert odd(cluster({"mtu": 9000}, {}, {})) == {"mtu": ("node1",)}


def test_of_two_the_asker_is_the_usual_one() -> None:
    found = cluster({"mtu": 9000}, {})
    assert odd(found) == {"mtu": ("node2",)}
    assert found["mtu"].what == "most have 9000; node2 has 1500"


def test_what_may_differ_is_noted() -> None:
    found = cluster({}, {}, {"underlay_mtu": 1400, "offloads": []})
    assert odd(found) == {}
    assert found["underlay-mtu"][1:3] == ("note", ("node3",))
    assert found["offloads"].what == "most have tso,uso; node3 has none"


def test_clocks_are_compared_with_each_other_and_not_with_the_askers() -> None:
    assert odd(cluster({}, {}, {}, ahead=(0.0, 0.3, 61.0))) == {"clock": ("node3",)}
    found = cluster({}, {}, {}, ahead=(0.0, -30.0, -30.1))
    assert odd(found) == {"clock": ("node1",)}
    assert found["clock"].what == "node1 30.0 s ahead"


def test_of_two_clocks_the_askers_is_the_usual_one() -> None:
    for ahead in (61.0, -61.0):
        assert odd(cluster({}, {}, ahead=(0.0, ahead))) == {"clock": ("node2",)}


def test_forwarding_that_is_off_is_odd_even_if_it_is_off_everywhere() -> None:
    assert odd(cluster({"ip_forward": 0}, {"ip6_forward": 0})) == {"forwarding": ("node1", "node2")}


def test_crossed_ranges_and_problems_are_named() -> None:
    found = cluster({}, {"crossed": ["10.244.7.0/24"]}, {"problems": ["tun-gone", "no-path"]})
    assert odd(found) == {"ranges": ("node2",), "problems": ("node3",)}
    assert found["ranges"].what == "node2 reaches 10.244.7.0/24 by itself"
    assert found["problems"].what == "node3: tun-gone,no-path"


def test_who_does_not_answer_is_odd_and_nothing_else_is_said_of_it() -> None:
    assert odd(cluster({}, {}, None)) == {"answers": ("node3",)}


def test_a_member_of_another_version_may_lack_facts_or_have_others() -> None:
    nodes = [
        Examined("node1", True, dict(USUAL)),
        Examined("node2", False, {"version": "9", "mtu": "large", "crossed": "all", "x": 1}),
    ]
    found = {finding.check: finding for finding in examine(nodes)}
    assert odd(found) == dict.fromkeys(("version", "mtu", "guard"), ("node2",))
    assert "node2 has nothing" in found["guard"].what


def test_what_a_member_says_is_cut_and_made_printable() -> None:
    found = cluster({}, {}, {"version": "\x1b[31m" + "x" * 500})
    assert "\x1b" not in found["version"].what
    assert len(found["version"].what) < 2 * LONGEST_SHOWN
