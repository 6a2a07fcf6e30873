"""Pods on the node: a veth whose one end is eth0 in the pod's namespace.

    pod's namespace: eth0 ======== veth ======== mus<hash of the name> : node's namespace

`attach` brings a pod from any state to the right one. Both ends of the veth come into being in one
message, already under their final names, so a half-made pod is a veth whose pod end lacks its
addresses: it is removed and made again. Everything else that is missing is added.

After a crash or restart of the daemon the veths are still there and still carry packets between
the pods of this node; `attach` finds them whole and leaves them alone.

Error contract: when `attach` fails, a veth that it made is gone again; one that it found whole
stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from node.kernel import netns
from node.kernel.desired import GSO_MAX_SIZE, desired_pod_state
from node.kernel.errors import KernelError
from node.kernel.model import POD_LINK, KernelState, Link, veth_macs, veth_name
from node.kernel.netlink import Netlink
from node.kernel.reconcile import DeleteLink, SetLink, reconcile
from overlay.types import Address

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


def attach(netlink: Netlink, pod: str, path: str, addresses: Sequence[Address], mtu: int) -> None:
    """Connect a namespace to the node under the name and the addresses of a pod.

    The host end is made and named, but gets its addresses and routes from the node's desired
    state. Doing it twice is fine.

    Args:
        netlink: of the node's namespace.
        pod: the pod's name.
        path: the pod's namespace, a path or a name below /run/netns.
        addresses: one per family.
        mtu: of both ends.

    Raises:
        KernelError: no such namespace; it is the node's own; it has another eth0. Nothing else.
    """
    desired = desired_pod_state(pod, addresses, mtu)
    host = Link(
        veth_name(pod),
        mtu=mtu,
        gso_max_size=GSO_MAX_SIZE,
        alias=pod,
        mac=veth_macs(pod).host,
    )
    with netns.opened(path) as namespace:
        if netns.is_own(namespace):
            raise KernelError(
                f"{path} is the namespace of the node itself",
                "name the namespace of the pod",
                "no-netns",
            )
        found = _find(netlink, host.name, path, namespace, desired)
        if not found:
            _check_free(path)
            netlink.create_veth(host, desired.links[POD_LINK], namespace)
        try:
            netlink.apply(SetLink(host))
            netns.run_in(path, _configure, desired)
        except KernelError:
            if not found:
                detach(netlink, pod)
            raise


def detach(netlink: Netlink, pod: str) -> None:
    """Remove a pod's veth, both ends. None there is fine.

    Raises:
        KernelError: the kernel refused. Nothing else.
    """
    netlink.apply(DeleteLink(veth_name(pod)))


def _find(netlink: Netlink, host: str, path: str, namespace: int, desired: KernelState) -> bool:
    """Whether the pod's veth is there and whole; one that is not is removed."""
    if netlink.link_index(host) is None:
        return False
    peer = netlink.peer_index(host, namespace)
    if peer is not None and netns.run_in(path, _holds, peer, desired):
        return True
    netlink.apply(DeleteLink(host))
    return False


def _holds(peer: int, desired: KernelState) -> bool:
    with Netlink() as inside:
        if inside.link_index(POD_LINK) != peer:
            return False
        return inside.read(desired.links.__contains__, ()).addresses >= desired.addresses


def _check_free(path: str) -> None:
    if netns.run_in(path, _has_link, POD_LINK):
        raise KernelError(
            f"namespace {path} has an interface {POD_LINK} already",
            "remove it there, or use another namespace",
            "netns-in-use",
        )


def _has_link(name: str) -> bool:
    with Netlink() as inside:
        return inside.link_index(name) is not None


def _configure(desired: KernelState) -> None:
    with Netlink() as inside:
        actual = inside.read(desired.links.__contains__, desired.sysctls)
        # The namespace belongs to the pod's owner: what else is in it stays.
        for change in reconcile(desired, actual, remove=False):
            inside.apply(change)
