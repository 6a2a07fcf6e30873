"""Watches the machine's own packet filters: none may drop what goes between pods without a word.

Docker sets the policy of iptables' FORWARD chain to drop, and so do ufw and others. No rule of ours
helps against that: a packet is forwarded if every chain at the hook lets it pass. The chain is
somebody else's, so it is not touched but named, with what to add to it.

A chain whose table names our interfaces is taken to be settled, whatever it says of them. Rules are
looked at when the kernel announced a change of any, and not otherwise. What nft does not list
(iptables-legacy) is not seen.

References:
    nft(8), base chains: hooks and policies. iptables(8), -i with a trailing `+`.
    Docker's documentation, "Packet filtering and firewalls": the FORWARD policy and DOCKER-USER.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final, NamedTuple

from node.kernel.model import NAT_TABLE, RULE_TABLE, VETH_PREFIX
from node.kernel.netlink import Netlink
from node.kernel.nft import Firewall
from node.kernel.watch import NETLINK_NETFILTER, RULES, KernelWatch
from overlay.views import Problem

_TOOLS: Final = {"ip": "iptables", "ip6": "ip6tables"}
_PACKETS: Final = {"ip": "IPv4 packets", "ip6": "IPv6 packets", "inet": "packets"}
_OURS: Final = (RULE_TABLE, NAT_TABLE)


class Chain(NamedTuple):
    """A chain of somebody else's that drops what none of its rules accepts."""

    family: str
    table: str
    name: str


class ForwardGuard:
    """Looks for filters of the machine that drop what is forwarded for pods.

    Args:
        tun: the TUN interface.
        firewall: lists rules; asked for nothing else.

    Attributes:
        problems: what was found, for the status.
    """

    def __init__(self, tun: str, firewall: Firewall | None = None) -> None:
        self._names = (f'"{VETH_PREFIX}*"', f'"{tun}"')
        self._firewall = firewall or Firewall()
        self._watch: KernelWatch | None = None
        self._stale = False
        self.problems: tuple[Problem, ...] = ()

    def look(self, _: Netlink) -> None:
        """Look again, if anything may have changed. In the netlink thread.

        Where nft cannot be asked all is as it was, and the next look looks again.
        """
        self._stale |= self._changed()  # before reading: nothing is missed
        if not self._stale:
            return
        listed = self._firewall.listing("-j", "list", "chains")
        rules = {chain: self._rules(chain) for chain in dropping_chains(listed)}
        if not listed or "" in rules.values():
            return
        self._stale = False
        self.problems = tuple(_problem(one) for one in rules if not self._named(rules[one]))

    def _changed(self) -> bool:
        try:
            if self._watch is not None:
                return self._watch.changed()
            self._watch = KernelWatch(NETLINK_NETFILTER, RULES)
        except OSError:
            return False  # a kernel without nf_tables drops nothing by them
        return True

    def _rules(self, chain: Chain) -> str:
        return self._firewall.listing("-s", "list", "table", chain.family, chain.table)

    def _named(self, rules: str) -> bool:
        return any(name in rules for name in self._names)

    def close(self) -> None:
        """Stop listening."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def dropping_chains(listed: str) -> Iterator[Chain]:
    """The chains of others that drop what is forwarded.

    Args:
        listed: what `nft -j list chains` says; empty where it says nothing.
    """
    for entry in json.loads(listed or "{}").get("nftables", ()):
        match entry:
            case {
                "chain": {
                    "family": str(family),
                    "table": str(table),
                    "name": str(name),
                    "hook": "forward",
                    "policy": "drop",
                }
            } if family in _PACKETS and table not in _OURS:
                yield Chain(family, table, name)


def _problem(chain: Chain) -> Problem:
    return Problem(
        "forward-dropped",
        f"{_PACKETS[chain.family]} between pods, and to other nodes, are dropped by this machine",
        f"chain {chain.name} of nft's table {chain.family} {chain.table} drops what it is not told "
        f"to accept, and names no interface {VETH_PREFIX}* (Docker and ufw make it so)",
        _fix(chain),
    )


def _fix(chain: Chain) -> str:
    if (chain.table, chain.name) == ("filter", "FORWARD") and chain.family in _TOOLS:
        add = f"{_TOOLS[chain.family]} -I FORWARD"
        return f"{add} -i {VETH_PREFIX}+ -j ACCEPT && {add} -o {VETH_PREFIX}+ -j ACCEPT"
    where = f"nft insert rule {chain.family} {chain.table} {chain.name}"
    both = (f"{where} {way} '\"{VETH_PREFIX}*\"' accept" for way in ("iifname", "oifname"))
    return " && ".join(both)
