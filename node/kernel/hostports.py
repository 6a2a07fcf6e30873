"""Ports of the node that lead to pods (`hostPort`, `docker run -p`): translation by nft.

    world, other nodes, other pods --> [prerouting] --+
                                                      +-- to an address of the node, to such a port?
    the node's own programs ---------> [output] ------+   then: to the pod's address and port

The connection is translated once, at its first packet; conntrack does its other packets and the
answers, and finds the pod whichever way the answers take. Only pods of this node are led to.

- Reached at every address of the node (`fib daddr type local`), or at the one that was asked for;
  an address that is not the node's leads nowhere, however the packet got here. It may become the
  node's later, so its rule is made; until then the status names it (`overlay.hostports`).
- Sources stay what they are: a pod sees who calls it. Two exceptions, where answers would not come
  back otherwise: a pod that calls itself through its own port (it would see its own address come
  in), and the node calling by 127.0.0.1 (an address that means the pod itself to a pod). Both are
  seen as the node's address in the pod network.
- 127.0.0.1 works because people type localhost. It needs `route_localnet` on the veths of pods that
  have ports, which alone would let such a pod reach what listens on the node's loopback
  (CVE-2020-8558): what `node.kernel.guard` drops of every pod. Others that open ports of pods by
  rules of their own (the CNI's portmap) set it too; so it is nobody's while the guard stands, and
  off for all pods while it does not. ::1 has nothing of the kind in Linux: it is refused, or
  whoever listens there answers.
- Who may call is not decided here. A port that somebody listens on, the underlay's among them, is
  not given away (`node.kernel.sockets`).

References:
    nft(8), "NAT statements", "FIB expressions".
    Linux Documentation/networking/ip-sysctl.rst, route_localnet; CVE-2020-8558.
    RFC 4787, section 6 (hairpinning).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from node.kernel.model import LOOPBACK, NAT_TABLE, KernelSettings, veth_name
from overlay.attachment import HostPort
from overlay.types import Address
from overlay.views import LocalView, PodView

ROUTE_LOCALNET: Final = "net/ipv4/conf/{}/route_localnet"
"""Setting of the veths of pods that have ports: 127.0.0.1 may be a source there."""

_FAMILIES: Final = {4: "ip", 6: "ip6"}
_ANY: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, no bind


def hostport_nat(snapshot: LocalView, _settings: KernelSettings) -> str:
    """The part in the table of translations.

    Args:
        snapshot: pods and their ports, and the node's own addresses.
    """
    pods = _open_pods(snapshot)
    if not pods:
        return ""
    table = f"inet {NAT_TABLE}"
    lines = [
        f"add chain {table} ports_in {{ type nat hook prerouting priority dstnat; }}",
        f"add chain {table} ports_out {{ type nat hook output priority -100; }}",
        f"add chain {table} ports_back {{ type nat hook postrouting priority srcnat; }}",
        f"add chain {table} ports",
        f"add rule {table} ports_in fib daddr type local jump ports",
        f"add rule {table} ports_out ip6 daddr ::1 return",
        f"add rule {table} ports_out fib daddr type local jump ports",
    ]
    for pod in pods:
        for port in pod.attachment.ports:
            lines += (f"add rule {table} ports {rule}" for rule in _leading(pod, port))
        lines += (f"add rule {table} ports_back {rule}" for rule in _returning(snapshot, pod))
    return "".join(f"{line}\n" for line in lines)


def hostport_sysctls(snapshot: LocalView) -> dict[str, str]:
    """The settings that 127.0.0.1 needs, by path below /proc/sys."""
    links = (veth_name(pod.name) for pod in _open_pods(snapshot) if pod.address is not None)
    return {ROUTE_LOCALNET.format(link): "1" for link in links}


def shut_sysctls(snapshot: LocalView) -> dict[str, str]:
    """The settings that keep 127.0.0.1 from all local pods where no filter does."""
    links = (veth_name(pod.name) for pod in snapshot.pods if pod.local)
    return {ROUTE_LOCALNET.format(link): "0" for link in links}


def without_ports(snapshot: LocalView) -> LocalView:
    """The same with no port open."""
    closed = tuple(
        replace(pod, attachment=replace(pod.attachment, ports=())) if pod.attachment.ports else pod
        for pod in snapshot.pods
    )
    return replace(snapshot, pods=closed)


def _open_pods(snapshot: LocalView) -> list[PodView]:
    found = (pod for pod in snapshot.pods if pod.local and pod.attachment.ports)
    return sorted(found, key=lambda pod: pod.name)


def _leading(pod: PodView, port: HostPort) -> Iterator[str]:
    """The rules that lead one port to its pod, one per family that both have."""
    for to in (pod.address, pod.address6):
        if to is None or not _serves(port, to):
            continue
        family = _FAMILIES[to.version]
        at = "" if port.host in _ANY else f"{family} daddr {port.host} "
        where = f"[{to}]" if to.version == 6 else str(to)
        yield (
            f"meta nfproto ipv{to.version} {at}{port.protocol} dport {port.host_port} "
            f"dnat {family} to {where}:{port.port}"
        )


def _serves(port: HostPort, to: Address) -> bool:
    return not port.host or ip_address(port.host).version == to.version


def _returning(snapshot: LocalView, pod: PodView) -> Iterator[str]:
    """The rules that make answers come back by the node."""
    if pod.address is not None:
        seen = f"snat ip to {snapshot.address}" if snapshot.address is not None else "masquerade"
        yield f"ip saddr {pod.address} ip daddr {pod.address} {seen}"
        yield f'ip saddr {LOOPBACK} oifname "{veth_name(pod.name)}" {seen}'
    if pod.address6 is not None:
        seen = f"snat ip6 to {snapshot.address6}" if snapshot.address6 is not None else "masquerade"
        yield f"ip6 saddr {pod.address6} ip6 daddr {pod.address6} {seen}"
