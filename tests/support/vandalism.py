"""Acts of vandalism against a node's part of the kernel, and how long it takes to be right again.

    node1: pod1 (the victim), pod2          node2: pod3
             ^------- pings ------'                 |
             '--------------- pings ----------------'

Ten pings a second reach the victim from beside it and from the other node. After each act
everything of ours must be as it was, in the node and in the pod, and what is not ours byte for
byte; `muslin status` must be well again.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from node.kernel.model import ROUTE_PROTOCOL, veth_name
from tests.support.labs import Lab, LabMaker, Place
from tests.support.processes import Background, attempt, background, run
from tests.support.waiting import eventually

TUN: Final = "muslin0"
PATIENCE: Final = 60.0
"""Seconds for a repair on a machine that is busy with other things."""

INTERVAL: Final = 0.1
"""Seconds between two pings."""


@dataclass(frozen=True)
class Act:
    """What somebody does.

    Attributes:
        name: in words.
        commands: `{veth}` is the host end of the victim's veth, `{elsewhere}` a namespace that is
            neither the node's nor the victim's.
        inside: in the victim's namespace instead of the node's.
        all_rules: it takes everybody's packet filters away.
    """

    name: str
    commands: tuple[str, ...]
    inside: bool = False
    all_rules: bool = False


ACTS: Final = (
    Act(
        "our routes deleted",
        (f"ip route flush proto {ROUTE_PROTOCOL}", f"ip -6 route flush proto {ROUTE_PROTOCOL}"),
    ),
    Act("our addresses deleted", (f"ip addr flush dev {TUN}", "ip addr flush dev {veth}")),
    Act("the TUN deleted", (f"ip link del {TUN}",)),
    Act("the TUN set down", (f"ip link set {TUN} down",)),
    Act("the TUN renamed", (f"ip link set {TUN} name lost0",)),
    Act("a veth's host side deleted", ("ip link del {veth}",)),
    Act("a veth's host side set down", ("ip link set {veth} down",)),
    Act("a veth's host side renamed", ("ip link set {veth} name lost1",)),
    Act("a veth's host side moved away", ("ip link set {veth} netns {elsewhere}",)),
    Act("a veth made a port of a bridge", ("ip link set {veth} master other2",)),
    Act("a pod's addresses deleted", ("ip addr flush dev eth0",), inside=True),
    Act(
        "a pod's routes deleted",
        ("ip route flush table main", "ip -6 route del default"),
        inside=True,
    ),
    Act("a pod's link set down", ("ip link set eth0 down",), inside=True),
    Act("our nft table flushed", ("nft flush table inet muslin",)),
    Act("our nft tables deleted", ("nft delete table inet muslin", "nft delete table arp muslin")),
    Act("the whole ruleset flushed", ("nft flush ruleset",), all_rules=True),
    Act(
        "forwarding turned off",
        ("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv6.conf.all.forwarding=0"),
    ),
    Act(
        "settings of our links changed",
        (
            f"sysctl -qw net.ipv4.conf.{TUN}.rp_filter=1",
            "sysctl -qw net.ipv4.conf.{veth}.rp_filter=2",
            "sysctl -qw net.ipv4.conf.{veth}.forwarding=0",
        ),
    ),
    Act("a setting that nobody announces", ("sysctl -qw net.ipv4.conf.{veth}.accept_redirects=1",)),
    Act(
        "sizes of our links changed",
        (
            f"ip link set {TUN} mtu 1400 txqueuelen 10 gso_max_size 2000",
            "ip link set {veth} mtu 1300 gso_max_size 2000",
        ),
    ),
    Act("a veth's link-layer address changed", ("ip link set {veth} address 02:00:00:00:00:99",)),
    Act("neighbours forgotten", ("ip neigh flush dev {veth} nud permanent",)),
)


@dataclass(frozen=True)
class Outcome:
    """What an act came to.

    Attributes:
        seconds: until everything was as before.
        lost: pings to the victim that were not answered, from beside it and from the other node.
        repaired: what the daemon has logged as put right.
    """

    seconds: float
    lost: tuple[int, int]
    repaired: tuple[str, ...]


class Scene:
    """A lab with something foreign in it, to be vandalized.

    Args:
        lab: two nodes; the first has two pods, the second at least one.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        here = [pod for pod in lab.pods if pod.node == "node1"]
        self.victim, self.beside = here[:2]
        self.far = next(pod for pod in lab.pods if pod.node == "node2")
        self.node = lab["node1"].netns
        self.veth = veth_name(self.victim.name)
        self._add_foreign()
        self.wanted = self._settled()

    def _add_foreign(self) -> None:
        for command in (
            "ip link add other0 type veth peer name other1",
            "ip link add other2 address 02:00:00:00:00:02 type bridge",
            "sysctl -qw net.ipv6.conf.other0.accept_ra=0",
            "sysctl -qw net.ipv6.conf.other1.accept_ra=0",
            "sysctl -qw net.ipv6.conf.other2.accept_ra=0",
            "sysctl -qw net.ipv4.conf.other0.rp_filter=2",
            "ip link set other0 addrgenmode none up",
            "ip link set other1 addrgenmode none up",
            "ip link set other2 addrgenmode none up",
            "ip addr add 192.0.2.1/24 dev other0",
            "ip route add 198.18.0.0/15 dev other0 proto static",
            "ip rule add from 192.0.2.1 lookup 99 priority 99",
            "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev other0 nud permanent",
        ):
            run(self.node, *command.split())
        self._add_foreign_rules()

    def _add_foreign_rules(self) -> None:
        run(
            self.node,
            "nft",
            "add table inet others; add chain inet others c; "
            "add rule inet others c ip daddr 192.0.2.7 accept",
        )

    def _settled(self) -> dict[str, Any]:
        """Everything of ours, once nothing is wrong."""
        eventually(lambda: self._problems() == [], within=PATIENCE)
        return self.ours()

    def _problems(self) -> list[Any]:
        """What is wrong; that somebody keeps doing this is not."""
        found = self.lab.ask("node1", "status")["problems"]
        return [problem for problem in found if problem["code"] != "kernel-contested"]

    # -- how it looks ------------------------------------------------------------------------------

    def ours(self) -> dict[str, Any]:
        """What is ours in the node and in the victim, without what a new link cannot keep."""
        links = {TUN, *(veth_name(pod.name) for pod in (self.victim, self.beside))}
        return {
            "node": _links(self.node, links),
            "routes": _routes(self.node, f"proto {ROUTE_PROTOCOL}"),
            "neighbours": _neighbours(self.node, links),
            "rules": [
                attempt(self.node, "nft", "-s", "list", "table", family, "muslin").stdout
                for family in ("inet", "arp")
            ],
            "settings": _settings(self.node, links),
            "pod": _links(self.victim.netns, {"eth0"}),
            "pod's routes": _routes(self.victim.netns, "table main"),
            "pod's neighbours": _neighbours(self.victim.netns, {"eth0"}),
        }

    def foreign(self) -> list[str]:
        """What is not ours, byte for byte."""
        said = [
            run(self.node, *words.split())
            for words in (
                "ip -o link",
                "ip -o addr",
                "ip -4 route show table all",
                "ip -6 route show table all",
                "ip rule",
                "ip -6 rule",
                "ip neigh show nud permanent",
            )
        ]
        mine = re.compile(
            rf"\b(mus[0-9a-f]{{10}}|{TUN})\b|proto {ROUTE_PROTOCOL}\b|lost[01]|multicast ff00::"
        )
        kept = [line for text in said for line in text.splitlines() if not mine.search(line)]
        settings = run(self.node, "sysctl", "-a", "--pattern", r"conf\.other[0-9]\.")
        kept += [line for line in settings.splitlines() if "forwarding" not in line]
        kept.append(attempt(self.node, "nft", "list", "table", "inet", "others").stdout)
        return [_PASSING.sub("", line) for line in kept]

    # -- what is done to it ----------------------------------------------------------------------

    def suffer(self, act: Act) -> Outcome:
        """One act, from before it until everything is as it was."""
        foreign, logged = self.foreign(), len(self._repairs())
        with _pinging(self.beside, self.victim) as near, _pinging(self.far, self.victim) as far:
            where = self.victim.netns if act.inside else self.node
            began = time.monotonic()
            for command in act.commands:
                said = command.format(veth=self.veth, elsewhere=self.far.netns)
                run(where, *said.split())
            eventually(self.is_right, within=PATIENCE)
            seconds = time.monotonic() - began
            lost = near.lost(), far.lost()
        if act.all_rules:
            self._add_foreign_rules()
        after = self.foreign()
        assert after == foreign, set(after) ^ set(foreign)
        eventually(lambda: self._problems() == [], within=PATIENCE)
        # A daemon that has much to do tells a little after it has put right.
        told = eventually(lambda: self._repairs()[logged:], within=PATIENCE)
        return Outcome(seconds, lost, tuple(told))

    def is_right(self) -> bool:
        """Whether everything of ours is as it was; an AssertionError says what is not."""
        now = self.ours()
        for part, wanted in self.wanted.items():
            assert now[part] == wanted, f"{part}: {now[part]} instead of {wanted}"
        return True

    def _repairs(self) -> list[str]:
        told = ("kernel.repaired", "tun.made-anew")
        return [
            line
            for line in self.lab.logs()["node1"].splitlines()
            if any(one in line for one in told)
        ]


@contextmanager
def vandalized(make_lab: LabMaker) -> Iterator[Scene]:
    """A scene in a lab of its own."""
    yield Scene(make_lab(nodes=2, pods=2))


class _Pings:
    """Answers to pings, as they come.

    Args:
        process: that sends them; the first was answered.
    """

    def __init__(self, process: Background) -> None:
        self._process = process
        self._began = time.monotonic()
        self._answered = {1}

    def lost(self) -> int:
        """Pings that stayed without an answer, up to one that is sent from now on."""
        now = 1 + int((time.monotonic() - self._began) / INTERVAL)
        while max(self._answered) < now:
            found = _ANSWER.search(self._process.line(PATIENCE))
            if found:
                self._answered.add(int(found[1]))
        return max(self._answered) - len(self._answered)


_PASSING = re.compile(
    r"(valid_lft|preferred_lft|expires) \d+sec|linkdown |NO-CARRIER,|,LOWER_UP|state \w+ "
)
"""What the kernel changes by itself, such as the carrier of a bridge that has lost a port."""

_ANSWER = re.compile(r"icmp_seq=(\d+) ttl=")


@contextmanager
def _pinging(source: Place, target: Place) -> Iterator[_Pings]:
    argv = ("ping", "-n", "-i", str(INTERVAL), target.address)
    with background(source.netns, *argv) as process:
        while not _ANSWER.search(process.line(PATIENCE)):
            pass
        yield _Pings(process)


def _links(namespace: str, names: set[str]) -> dict[str, Any]:
    kept = ("mtu", "txqlen", "gso_max_size", "master")
    found = {}
    for link in json.loads(run(namespace, "ip", "-d", "-j", "addr")):
        if link["ifname"] in names:
            found[link["ifname"]] = {
                **{key: link.get(key) for key in kept},
                "up": "UP" in link["flags"],
                "alias": link.get("ifalias") if link["ifname"] != TUN else None,
                "mac": link.get("address"),
                "addresses": sorted(
                    f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]
                ),
            }
    return found


def _routes(namespace: str, which: str) -> list[str]:
    said = [
        run(namespace, "ip", family, "route", "show", *which.split()) for family in ("-4", "-6")
    ]
    return sorted(line.strip() for text in said for line in text.splitlines())


def _neighbours(namespace: str, links: set[str]) -> list[str]:
    said = run(namespace, "ip", "neigh", "show", "nud", "permanent").splitlines()
    return sorted(line.strip() for line in said if line.split()[2] in links)


def _settings(namespace: str, links: set[str]) -> list[str]:
    wanted = "|".join(sorted(links))
    names = rf"net\.ipv[46]\.conf\.({wanted})\.|net\.ipv4\.ip_forward$|ipv6\.conf\.all\.forwarding$"
    said = run(namespace, "sysctl", "-a", "--pattern", names).splitlines()
    watched = (
        ".forwarding = ",
        "rp_filter",
        "accept_redirects",
        "accept_local",
        "proxy_arp ",
        "disable_ipv6",
        "accept_ra ",
        "accept_dad",
        "ip_forward",
    )
    return sorted(
        line for line in said if any(one in line for one in watched) and "mc_" not in line
    )
