"""Keeps the kernel as the snapshot says: what the daemon holds of `node.kernel`.

The daemon calls `apply` whenever the network changed, and again every `REPAIR_INTERVAL`: whatever
somebody else removed or altered is then put right. Unless neither the wish nor the kernel has
changed, a call compares everything; there is no list of what was done before, so a restarted
daemon needs none.

`apply` obeys its snapshot to the letter: it connects again a pod that was just detached if the
snapshot still has it. So the daemon lets it run neither beside nor between the two steps of a
change of pods, see `node.control.handlers`.

Errors of one change do not stop the others. They come back as `Problem`s, for `muslin status`.

The methods below "in the netlink thread" run there, one at a time; the others run in the daemon's
loop. Both sides exchange whole, immutable snapshots, so there is nothing to lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from node.kernel import netns, pods
from node.kernel.desired import desired_state
from node.kernel.errors import KernelError
from node.kernel.guard import GuardFacts, guard_rules
from node.kernel.model import KernelState, is_veth_name, veth_name
from node.kernel.netlink import Netlink
from node.kernel.nft import Firewall
from node.kernel.overlap import HostRoute, find_overlap
from node.kernel.reconcile import Change, reconcile
from node.kernel.thread import KernelThread
from overlay.errors import StateError
from overlay.types import Address, Prefix
from overlay.views import LocalView, PodView, Problem

REPAIR_INTERVAL: Final = 2.0
"""Between two `apply` calls of the daemon. Nearly free when nothing changed in the kernel."""

Wiring = tuple[str, Address | None, Address | None]
"""Namespace and addresses of a pod: what connecting it depends on."""


class KernelManager:
    """The node's namespace and the namespaces of its pods.

    Args:
        tun: name of the TUN interface; it exists before `apply` is called.
        mtu: what pods see.
        thread: where netlink is spoken. Stays open: it belongs to the caller.
        firewall: checks what pods send; without one only the routes do.
        ports: the UDP ports of the underlay, closed to the pod network.
    """

    def __init__(
        self,
        tun: str,
        mtu: int,
        thread: KernelThread,
        firewall: Firewall | None = None,
        ports: range = range(1),
    ) -> None:
        self._tun = tun
        self._ports = ports
        self._firewall = firewall or Firewall("")
        self._counted: Mapping[str, int] = {}
        self._mtu = mtu
        self._thread = thread
        self._snapshot: LocalView | None = None
        # The rest is used in the netlink thread only.
        self._settled: tuple[KernelState, tuple[Prefix, ...], dict[str, Wiring]] | None = None
        self._overlapping: frozenset[Prefix] = frozenset()  # outside networks the host reaches
        self._problems: tuple[Problem, ...] = ()
        self._attached: dict[str, PodView] = {}

    async def apply(self, snapshot: LocalView) -> tuple[Problem, ...]:
        """Bring the kernel to what `snapshot` says; returns what could not be done.

        Nearly free when neither that nor the kernel has changed, so call it often. Never raises:
        a kernel that does not answer is a problem like the others.
        """
        self._snapshot = snapshot
        try:
            return await self._thread.call(self._apply)
        except KernelError as error:
            return (_problem("kernel-silent", "the kernel's state is unknown", error),)

    async def attach_pod(self, pod: PodView) -> None:
        """Connect a pod, namespace and all; packets can flow when it returns.

        Raises:
            KernelError: it cannot be connected; nothing of it is left. Nothing else.
            StateError: `apply` was never called.
        """
        self._snapshot = _with_pods(self._known(), without=pod.name, extra=(pod,))
        try:
            await self._thread.call(self._attach, pod)
        except KernelError:
            self._snapshot = _with_pods(self._known(), without=pod.name)
            raise

    async def detach_pod(self, name: str) -> None:
        """Disconnect a pod; its namespace goes too if it was made for it. Twice is fine.

        Raises:
            KernelError: the kernel refused. Nothing else.
            StateError: `apply` was never called.
        """
        self._snapshot = _with_pods(self._known(), without=name)
        await self._thread.call(self._detach, name)

    async def present(self, views: Iterable[PodView]) -> frozenset[str]:
        """Those of these pods that have a namespace, or a veth into one that has lost its name.

        Raises:
            KernelError: the kernel does not answer. Nothing else.
        """
        held = {pod.name: pod.netns for pod in views}
        return await self._thread.call(self._present, held)

    async def strays(self) -> tuple[str, ...]:
        """Host ends of veths that belong to no pod: the pods' names, as far as they are known.

        Raises:
            KernelError: the kernel does not answer. Nothing else.
            StateError: `apply` was never called.
        """
        ours = {veth_name(pod.name) for pod in self._known().pods}
        links = await self._thread.call(self._veths)
        return tuple(sorted(alias or name for name, alias in links.items() if name not in ours))

    @property
    def guard(self) -> GuardFacts:
        """Who checks what pods send; the counts are those of the last `count`."""
        return GuardFacts(self._firewall.why, self._counted)

    async def count(self) -> None:
        """Read what the packet filter has dropped so far.

        Raises:
            KernelError: the netlink socket cannot be opened. Nothing else.
        """
        self._counted = await self._thread.call(lambda _: self._firewall.counts())

    async def close(self, *, remove: bool) -> None:
        """Stop looking after the kernel.

        Args:
            remove: False leaves everything as it is: pods of this node keep reaching each other,
                and the next daemon finds them. True, when the node leaves its cluster, takes away
                veths, routes and the namespaces that were made for pods.

        Raises:
            KernelError: the kernel refused. Nothing else.
        """
        if remove:
            await self._thread.call(self._remove_everything)
        self._firewall.close()

    def _known(self) -> LocalView:
        if self._snapshot is None:
            raise StateError("apply comes first: addresses and blocks are not known yet")
        return self._snapshot

    # -- in the netlink thread ----------------------------------------------------------------

    def _apply(self, netlink: Netlink) -> tuple[Problem, ...]:
        snapshot = self._known()
        desired = desired_state(snapshot, self._tun, self._mtu)
        local = {pod.name: pod for pod in snapshot.pods if pod.local}
        wired = {name: _wiring(pod) for name, pod in local.items()}
        settled = desired, snapshot.own_outside, wired
        changed = [netlink.changed(), self._firewall.changed()]  # both: each forgets by being asked
        if any(changed) or self._problems or settled != self._settled:
            self._settled = None  # until all is done: a kernel that is silent now is asked again
            self._guard()
            overlaps = self._look_for_overlaps(netlink, snapshot)
            self._problems = (*overlaps, *self._settle(netlink, local))
            self._forget(local)
            self._settled = settled
        elif self._firewall.failed:
            self._guard()
        return self._problems

    def _guard(self) -> None:
        """Comes before any veth is made: not one packet of a pod goes unchecked."""
        self._firewall.hold(guard_rules(self._known(), self._tun, self._ports))

    def _look_for_overlaps(self, netlink: Netlink, snapshot: LocalView) -> list[Problem]:
        """Outside networks that the machine reaches by itself stay as they are."""
        host = netlink.host_routes() if snapshot.outside else []
        found = {prefix: find_overlap(host, [prefix]) for prefix in snapshot.outside}
        overlaps = {prefix: overlap[0] for prefix, overlap in found.items() if overlap is not None}
        self._overlapping = frozenset(overlaps)
        return [_overlap(prefix, route) for prefix, route in overlaps.items()]

    def _desired(self) -> KernelState:
        snapshot = self._known()
        kept = tuple(one for one in snapshot.outside if one not in self._overlapping)
        return desired_state(replace(snapshot, outside=kept), self._tun, self._mtu)

    def _settle(self, netlink: Netlink, local: dict[str, PodView]) -> list[Problem]:
        desired = self._desired()
        actual = netlink.read(self._ours, desired.sysctls)
        problems = []
        unwired = [pod for pod in local.values() if not self._is_wired(pod, actual)]
        for pod in unwired:
            try:
                self._connect(netlink, pod)
            except KernelError as error:
                self._attached.pop(pod.name, None)
                problems.append(_detached(pod, error))
        if unwired:
            actual = netlink.read(self._ours, desired.sysctls)
        failed = [error for _, error in _reach(netlink, desired, actual)]
        if failed:
            parts = "part" if len(failed) == 1 else "parts"
            what = f"the kernel lacks {len(failed)} {parts} of the network"
            problems.append(_problem("kernel-refused", what, failed[0]))
        if self._tun not in actual.links:
            why = KernelError("somebody removed it", "restart the daemon")
            problems.append(_problem("tun-gone", f"interface {self._tun} is gone", why))
        return problems

    def _is_wired(self, pod: PodView, actual: KernelState) -> bool:
        held = self._attached.get(pod.name)
        if held is None or veth_name(pod.name) not in actual.links:
            return False
        return _wiring(held) == _wiring(pod)

    def _connect(self, netlink: Netlink, pod: PodView) -> None:
        addresses = [address for address in _wiring(pod)[1:] if address is not None]
        pods.attach(netlink, pod.name, pod.netns, addresses, self._mtu)
        self._attached[pod.name] = pod

    def _present(self, netlink: Netlink, held: dict[str, str]) -> frozenset[str]:
        veths = self._veths(netlink)
        return frozenset(
            name
            for name, path in held.items()
            if not netns.is_gone(path) or veth_name(name) in veths
        )

    def _veths(self, netlink: Netlink) -> dict[str, str | None]:
        links = netlink.read(is_veth_name, ()).links
        return {name: link.alias for name, link in links.items()}

    def _ours(self, link: str) -> bool:
        return link == self._tun or is_veth_name(link)

    def _forget(self, local: dict[str, PodView]) -> None:
        for name in self._attached.keys() - local.keys():
            pods.remove_own_namespace(self._attached.pop(name).netns)

    def _attach(self, netlink: Netlink, pod: PodView) -> None:
        existed = netns.exists(pod.netns)
        try:
            pods.make_own_namespace(pod.netns)
            self._guard()
            self._connect(netlink, pod)
            for change, error in self._reconcile(netlink):
                # What else the kernel refuses is not this pod's affair; `apply` reports it.
                if veth_name(pod.name) in str(change):
                    raise error
        except KernelError:
            pods.detach(netlink, pod.name)
            self._attached.pop(pod.name, None)
            if not existed:
                pods.remove_own_namespace(pod.netns)
            raise

    def _detach(self, netlink: Netlink, name: str) -> None:
        pods.detach(netlink, name)
        self._reconcile(netlink)
        self._guard()
        pod = self._attached.pop(name, None)
        if pod is not None:
            pods.remove_own_namespace(pod.netns)

    def _reconcile(self, netlink: Netlink) -> list[tuple[Change, KernelError]]:
        desired = self._desired()
        return _reach(netlink, desired, netlink.read(self._ours, desired.sysctls))

    def _remove_everything(self, netlink: Netlink) -> None:
        failed = _reach(netlink, KernelState(), netlink.read(self._ours, ()))
        self._forget({})
        self._firewall.remove()
        if failed:
            raise failed[0][1]


def _reach(
    netlink: Netlink, desired: KernelState, actual: KernelState
) -> list[tuple[Change, KernelError]]:
    """Do what is missing; returns the changes that the kernel refused."""
    failed = []
    for change in reconcile(desired, actual):
        try:
            netlink.apply(change)
        except KernelError as error:
            failed.append((change, error))
    return failed


def _wiring(pod: PodView) -> Wiring:
    return pod.netns, pod.address, pod.address6


def _with_pods(snapshot: LocalView, *, without: str, extra: tuple[PodView, ...] = ()) -> LocalView:
    """The snapshot with one local pod left out, and others put in."""
    kept = tuple(pod for pod in snapshot.pods if not (pod.local and pod.name == without))
    return replace(snapshot, pods=kept + extra)


def _detached(pod: PodView, error: KernelError) -> Problem:
    """A pod that cannot be connected. Without a namespace only its address is left of it."""
    if not netns.is_gone(pod.netns):
        return _problem("pod-detached", f"pod {pod.name} is not connected", error)
    fix = f"muslin pod del {pod.name}, or muslin ipam check --fix"
    return Problem("pod-lost", f"pod {pod.name} has lost its namespace", error.why, fix)


def _overlap(prefix: Prefix, route: HostRoute) -> Problem:
    return Problem(
        "route-overlaps-host",
        f"packets to {prefix} do not take the pod network",
        f"this machine has the route {route} of its own",
        "remove that route, or leave it: packets go where it leads",
    )


def _problem(code: str, what: str, error: KernelError) -> Problem:
    return Problem(code=code, what=what, why=error.why, fix=error.fix)
