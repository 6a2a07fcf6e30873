"""Pods on the node: a veth whose one end is an interface in the pod's namespace, mostly eth0.

    pod's namespace: eth0 ======== veth ======== mus<hash of the name> : node's namespace

`attach` brings a pod from any state to the right one. Both ends of the veth come into being in one
message, already under their final names, so a half-made pod is a veth whose pod end lacks its
addresses: it is removed and made again. Everything else that is missing is added. Of a veth whose
host end was moved to another namespace, the pod's end is still there, and known by its link-layer
address: it is removed, and the other end with it, wherever that is.

After a crash or restart of the daemon the veths are still there and still carry packets between
the pods of this node; `attach` finds them whole and leaves them alone.

A namespace may have several interfaces, each a pod to the node. The first is its way out. One that
comes later, or beside the network of somebody else, does not change where packets go by themselves:
it has a table of its own, and what has its address as source is led back by it. So an answer leaves
by the interface that was asked, where the node believes its source, and a program that wants to
begin there binds to the address or the interface. That is what the CNI plugin `sbr` does for
others' interfaces, too.

Some runtimes, Docker among them, move the pod's end into the namespace themselves and configure it
(`handed`). Then both ends are made here, the pod's as mup<hash of the name>, and nothing is ever
touched behind the host end: such a pod is there as long as its host end is. One that is lost can
only be made again by its runtime.

A path such as /proc/7/ns/net, by which some runtimes name a namespace, becomes another's when the
process has ended and its number is used again. So a pod that was connected there is itself only as
long as its veth says so: one without is not connected again, but lost.

Error contract: when `attach` fails, a veth that it made is gone again; one that it found whole
stays.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from node.kernel import netns
from node.kernel.desired import GSO_MAX_SIZE, desired_pod_state
from node.kernel.errors import KernelError
from node.kernel.model import (
    GATEWAY,
    GATEWAY6,
    POD_LINK,
    KernelState,
    Link,
    peer_name,
    veth_macs,
    veth_name,
)
from node.kernel.netlink import Netlink
from node.kernel.reader import Ours
from node.kernel.reconcile import DeleteLink, SetLink, reconcile
from overlay.types import Address
from overlay.views import PodView

LINK_LOST: Final = "link-lost"
"""Code of the refusal to make a link again that its runtime has to make."""

OWN_PREFIX: Final = "muslin-"
"""Namespaces with such names were made by `muslin pod add` and go away with their pods."""

CLUSTER_DIGITS: Final = 8
"""Hex digits of the cluster's id in such a name: enough to tell apart those of one machine."""


def own_namespace(node: str, pod: str, cluster: str = "") -> str:
    """The path of the namespace that is made for a pod that brings none.

    With the names of node and cluster, because several nodes, of several clusters, may run on one
    machine.

    >>> own_namespace("node1", "web", "c3893ffa848ef7ee")
    '/run/netns/muslin-c3893ffa-node1-web'
    """
    owner = f"{cluster[:CLUSTER_DIGITS]}-{node}" if cluster else node
    return str(netns.path_of(f"{OWN_PREFIX}{owner}-{pod}"))


def is_own_namespace(path: str) -> bool:
    """Whether a pod's namespace was made by us (and may be removed by us).

    >>> is_own_namespace("/run/netns/muslin-node1-web"), is_own_namespace("/run/netns/web")
    (True, False)
    """
    file = netns.path_of(path)
    return file.parent == netns.NETNS_DIR and file.name.startswith(OWN_PREFIX)


def make_own_namespace(path: str) -> None:
    """Make the namespace at `path` if it is one of ours and not there.

    Raises:
        KernelError: it cannot be made. Nothing else.
    """
    if is_own_namespace(path) and not netns.exists(path):
        netns.create(netns.path_of(path).name)


def remove_own_namespace(path: str) -> None:
    """Remove the namespace at `path` if it is one of ours.

    Raises:
        KernelError: the kernel refused. Nothing else.
    """
    if is_own_namespace(path):
        netns.delete(netns.path_of(path).name)


@dataclass(frozen=True, slots=True)
class PodEnd:
    """What connecting a pod depends on.

    Attributes:
        pod: the pod's name.
        netns: its namespace, a path or a name below /run/netns; not looked at if `handed`.
        addresses: one per family.
        link: name of the interface inside.
        handed: whether its runtime moves and configures the pod's end.
    """

    pod: str
    netns: str
    addresses: tuple[Address, ...]
    link: str = POD_LINK
    handed: bool = False

    @classmethod
    def of(cls, pod: PodView) -> PodEnd:
        """That of a local pod."""
        held = tuple(one for one in (pod.address, pod.address6) if one is not None)
        said = pod.attachment
        return cls(pod.name, pod.netns, held, said.interface, said.handed)


def attach(netlink: Netlink, end: PodEnd, mtu: int, *, first: bool = True) -> None:
    """Connect a namespace to the node under the name and the addresses of a pod.

    The host end is made and named, but gets its addresses and routes from the node's desired
    state. Doing it twice is fine.

    Args:
        netlink: of the node's namespace.
        end: the pod, and what is inside.
        mtu: of both ends.
        first: False if it was connected before. A pod that was handed over is then not made again,
            nor one that a process is named for.

    Raises:
        KernelError: no such namespace; it is the node's own; it has another interface of that
            name; `link-lost`, only its runtime can connect it again. Nothing else.
    """
    host = Link(
        veth_name(end.pod),
        mtu=mtu,
        gso_max_size=GSO_MAX_SIZE,
        alias=end.pod,
        mac=veth_macs(end.pod).host,
    )
    if end.handed:
        _hand_over(netlink, host, end, first=first)
        return
    inside = desired_pod_state(end.pod, end.addresses, mtu, link=end.link)
    with netns.opened(end.netns) as namespace:
        if netns.is_own(namespace):
            raise KernelError(
                f"{end.netns} is the namespace of the node itself",
                "name the namespace of the pod",
                "no-netns",
            )
        if not first and is_of_a_process(end.netns):
            _check_same(netlink, host.name, end, namespace)
        found = _find(netlink, host.name, end, namespace, inside)
        if not found:
            if not first:
                netns.run_in(end.netns, _remove_stranded, end)
            try:
                netlink.create_veth(host, inside.links[end.link], namespace)
            except KernelError:
                _check_free(end)  # says more
                raise
        try:
            netlink.apply(SetLink(host))
            netns.run_in(end.netns, _configure, end, mtu)
            netlink.wait_until_running(host.name)
        except KernelError:
            if not found:
                detach(netlink, end.pod)
            raise


def is_of_a_process(path: str) -> bool:
    """Whether a namespace is named by a process, whose number may be another's by now.

    >>> is_of_a_process("/proc/7/ns/net"), is_of_a_process("/run/netns/web")
    (True, False)
    """
    return path.startswith("/proc/")


def _check_same(netlink: Netlink, host: str, end: PodEnd, namespace: int) -> None:
    if netlink.peer_index(host, namespace) is None:
        raise KernelError(
            f"its link is gone, and {end.netns} may be another container's by now",
            f"delete its container, or run: muslin pod del {end.pod}",
            LINK_LOST,
        )


def _hand_over(netlink: Netlink, host: Link, end: PodEnd, *, first: bool) -> None:
    """Both ends here: the pod's waits, down, for its runtime, which configures it."""
    if netlink.link_index(host.name) is None:
        if not first:
            why = f"its link {host.name} is gone"
            raise KernelError(why, "disconnect it and connect it again, by its runtime", LINK_LOST)
        peer = Link(
            peer_name(end.pod),
            up=False,
            mtu=host.mtu,
            gso_max_size=GSO_MAX_SIZE,
            mac=veth_macs(end.pod).pod,
        )
        netlink.create_veth(host, peer)
    netlink.apply(SetLink(host))


def mend(end: PodEnd, mtu: int, *, thorough: bool) -> tuple[list[str], list[KernelError]]:
    """Put back what a connected pod lacks inside its namespace; what else is there stays.

    Args:
        end: of a pod that is not handed over.
        mtu: of its interface.
        thorough: whether to make the way back beside another network even if its rule is there.
            That is announced, so it is not for following announcements.

    Returns:
        What was put back, in words, and what the kernel refused.

    Raises:
        KernelError: there is no such namespace, or the kernel does not answer. Nothing else.
    """
    return netns.run_in(end.netns, _mend, end, mtu, thorough=thorough)


def _mend(end: PodEnd, mtu: int, *, thorough: bool) -> tuple[list[str], list[KernelError]]:
    with Netlink() as inside:
        if inside.link_index(end.link) is None:
            why = f"its interface {end.link} was renamed, or moved away"
            return [], [KernelError(why, "take that back, or delete the pod and add it again")]
        return _complete(inside, end, mtu, thorough=thorough)


def _complete(
    inside: Netlink, end: PodEnd, mtu: int, *, thorough: bool
) -> tuple[list[str], list[KernelError]]:
    """Do what is missing inside; what was done, and what was refused."""
    elsewhere = _ways_out(inside, end.link)
    desired = desired_pod_state(end.pod, end.addresses, mtu, link=end.link, elsewhere=elsewhere)
    done: list[str] = []
    refused: list[KernelError] = []
    # The namespace belongs to the pod's owner: what else is in it stays.
    actual = inside.read(_among(desired), desired.sysctls)
    for change in reconcile(desired, actual, remove=False):
        try:
            inside.apply(change)
        except KernelError as error:
            refused.append(error)
        else:
            done.append(str(change))
    for address in end.addresses:
        if address.version not in elsewhere:
            continue
        # Announced even if nothing was missing: not to be done because of an announcement alone.
        if thorough or done or not inside.leads_back(address, end.link):
            gateway = GATEWAY if address.version == 4 else GATEWAY6
            inside.lead_back(address, end.link, gateway)
    return done, refused


def _among(desired: KernelState) -> Ours:
    """Whether a link is one of those of a state."""
    return lambda link: link.name in desired.links


def detach(netlink: Netlink, pod: str) -> None:
    """Remove a pod's veth, both ends. None there is fine.

    Raises:
        KernelError: the kernel refused. Nothing else.
    """
    netlink.apply(DeleteLink(veth_name(pod)))


def detach_together(netlink: Netlink, pods: Collection[str]) -> None:
    """Remove the veths of pods in one go, as far as that works; `detach` says more.

    Args:
        netlink: of the node's namespace.
        pods: their names.
    """
    with suppress(KernelError):
        netlink.delete_links([veth_name(pod) for pod in pods])


def _find(netlink: Netlink, host: str, end: PodEnd, namespace: int, inside: KernelState) -> bool:
    """Whether the pod's veth is there and whole; one that is not is removed."""
    if netlink.link_index(host) is None:
        return False
    peer = netlink.peer_index(host, namespace)
    if peer is not None and netns.run_in(end.netns, _holds, peer, end.link, inside):
        return True
    netlink.apply(DeleteLink(host))
    return False


def _remove_stranded(end: PodEnd) -> None:
    """Remove the pod's end of a veth whose other end somebody has moved away; both go.

    Moving it has set it down, so nobody is at the other end. If somebody is, another daemon on this
    machine has that pod, with a copy of this node's folder: both would take it from each other.
    """
    mac = veth_macs(end.pod).pod

    def ours(link: Link) -> bool:
        return (link.name, link.kind, link.mac) == (end.link, "veth", mac)

    with Netlink() as inside:
        facts = inside.link_facts(end.link)
        if facts is None or facts.carrier:
            return
        for name in inside.read(ours, ()).links:
            inside.apply(DeleteLink(name))


def _holds(peer: int, link: str, desired: KernelState) -> bool:
    with Netlink() as inside:
        if inside.link_index(link) != peer:
            return False
        return inside.read(_among(desired), ()).addresses >= desired.addresses


def _check_free(end: PodEnd) -> None:
    if netns.run_in(end.netns, _has_link, end.link):
        raise KernelError(
            f"namespace {end.netns} has an interface {end.link} already",
            "remove it there, or use another namespace",
            "netns-in-use",
        )


def _has_link(name: str) -> bool:
    with Netlink() as inside:
        return inside.link_index(name) is not None


def _configure(end: PodEnd, mtu: int) -> None:
    with Netlink() as inside:
        _, refused = _complete(inside, end, mtu, thorough=True)
        if refused:
            raise refused[0]


def _ways_out(inside: Netlink, link: str) -> frozenset[int]:
    """IP versions of which the namespace has a default route by another interface."""
    others = {name for _, name in socket.if_nameindex()} - {"lo", link}
    if not others:
        return frozenset()
    return frozenset(version for version, by in inside.default_links() if by in others)
