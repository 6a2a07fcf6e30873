"""Snapshots and pod views for tests of what is made from them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from overlay.views import LedgerView, PodView, Snapshot


def pod_view(node: int, number: int, *, netns: str = "", local: bool = True) -> PodView:
    """Pod `pod<node><number>` at 10.244.<node>.<number + 1> and fd00:0:0:<node>::<number + 1>."""
    return PodView(
        name=f"pod{node}{number}",
        node=f"node{node}",
        address=IPv4Address(f"10.244.{node}.{number + 1}"),
        address6=IPv6Address(f"fd00:0:0:{node}::{number + 1}"),
        netns=netns,
        state="ready",
        since=0.0,
        local=local,
    )


def node_snapshot(node: int, pods: tuple[PodView, ...] = ()) -> Snapshot:
    """Node `node<node>` with block number <node> of 10.244.0.0/16 and fd00::/48."""
    return Snapshot(
        now=0.0,
        name=f"node{node}",
        cluster="00",
        cidr=ip_network("10.244.0.0/16"),
        cidr6=ip_network("fd00::/48"),
        address=IPv4Address(f"10.244.{node}.1"),
        address6=IPv6Address(f"fd00:0:0:{node}::1"),
        nodes=(),
        pods=pods,
        routes=(),
        sessions=(),
        blocks=(),
        own_prefixes=(ip_network(f"10.244.{node}.0/24"), ip_network(f"fd00:0:0:{node}::/64")),
        ledger=LedgerView(0, 0, 0, {}),
    )
