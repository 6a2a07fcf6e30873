"""What the netlink thread does to keep the kernel as the snapshot says.

`settle` compares everything, unless neither the wish nor the kernel has changed; there is no list
of what was done before, so a restarted daemon needs none. `change` is for pods that come and go:
all that wait at the same time share one transaction of rules and one comparison, which are most of
the cost.

Errors of one change do not stop the others. They come back as `Problem`s, for `muslin status`.

Everything here blocks and runs in the netlink thread, one call at a time.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from node.kernel import netns, pods
from node.kernel.desired import desired_state
from node.kernel.errors import KernelError
from node.kernel.hostports import shut_sysctls, without_ports
from node.kernel.model import KernelSettings, KernelState, is_pod_link, is_veth_name, veth_name
from node.kernel.netlink import Netlink
from node.kernel.nft import Firewall
from node.kernel.overlap import HostRoute, find_overlap
from node.kernel.reconcile import Change, reconcile
from node.kernel.rules import GET_NFT, compose, compose_filters, unkept
from node.kernel.sockets import taken_by_socket
from overlay.types import Prefix
from overlay.views import LocalView, PodView, Problem

Settled = tuple[KernelState, dict[str, pods.PodEnd]]

_NOTHING: Final = KernelState()


class Keeper:
    """The node's namespace and the namespaces of its pods.

    Args:
        settings: names and sizes.
        firewall: holds the rules; without nft only the routes check anything.

    Attributes:
        settings: may be replaced at any time; the next `settle` obeys.
    """

    def __init__(self, settings: KernelSettings, firewall: Firewall) -> None:
        self.settings = settings
        self._firewall = firewall
        self._settled: Settled | None = None
        self._overlapping: frozenset[Prefix] = frozenset()  # outside networks the host reaches
        self._problems: tuple[Problem, ...] = ()
        self._attached: dict[str, PodView] = {}

    # -- all of it -------------------------------------------------------------------------------

    def settle(self, netlink: Netlink, snapshot: LocalView) -> tuple[Problem, ...]:
        """Bring the kernel to what the snapshot says; what could not be done.

        Raises:
            KernelError: the kernel does not answer; all is compared next time. Nothing else.
        """
        desired = desired_state(snapshot, self.settings)
        local = {pod.name: pod for pod in snapshot.pods if pod.local}
        wired = {name: pods.PodEnd.of(pod) for name, pod in local.items()}
        settled = desired, wired
        changed = [netlink.changed(), self._firewall.changed()]  # both: each forgets by being asked
        if any(changed) or self._problems or settled != self._settled:
            self._settled = None  # until all is done: a kernel that is silent now is asked again
            missing = unkept(snapshot, self.settings, self._hold(snapshot))  # before any veth
            overlaps = self._look_for_overlaps(netlink, snapshot)
            self._problems = (*overlaps, *missing, *self._settle(netlink, snapshot, local))
            self._forget(local)
            self._settled = settled
        elif self._firewall.failed:
            self._hold(snapshot)
        return self._problems

    def _hold(self, snapshot: LocalView) -> str:
        """Make the rules stand; why not all of them do.

        A kernel that cannot translate gets the others: what pods may send is checked in any case.
        """
        self._firewall.hold(compose(snapshot, self.settings))
        why = self._firewall.why
        if self._firewall.failed:
            self._firewall.hold(compose_filters(snapshot, self.settings))
        return why

    def _look_for_overlaps(self, netlink: Netlink, snapshot: LocalView) -> list[Problem]:
        """Outside networks that the machine reaches by itself stay as they are."""
        host = netlink.host_routes() if snapshot.outside else []
        found = {prefix: find_overlap(host, [prefix]) for prefix in snapshot.outside}
        overlaps = {prefix: overlap[0] for prefix, overlap in found.items() if overlap is not None}
        self._overlapping = frozenset(overlaps)
        return [_overlap(prefix, route) for prefix, route in overlaps.items()]

    def _desired(self, snapshot: LocalView) -> KernelState:
        kept = tuple(one for one in snapshot.outside if one not in self._overlapping)
        snapshot = replace(snapshot, outside=kept)
        if not self._firewall.why:
            return desired_state(snapshot, self.settings)
        # Veths are let at 127.0.0.1, by whoever it is, behind a filter only.
        desired = desired_state(without_ports(snapshot), self.settings)
        return replace(desired, sysctls={**desired.sysctls, **shut_sysctls(snapshot)})

    def _settle(
        self, netlink: Netlink, snapshot: LocalView, local: Mapping[str, PodView]
    ) -> list[Problem]:
        desired, tun = self._desired(snapshot), self.settings.tun
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
            problems.append(problem_of("kernel-refused", what, failed[0]))
        if tun not in actual.links:
            why = KernelError("somebody removed it", "restart the daemon")
            problems.append(problem_of("tun-gone", f"interface {tun} is gone", why))
        return problems

    def _is_wired(self, pod: PodView, actual: KernelState) -> bool:
        held = self._attached.get(pod.name)
        if held is None or veth_name(pod.name) not in actual.links:
            return False
        return pods.PodEnd.of(held) == pods.PodEnd.of(pod)

    def _connect(self, netlink: Netlink, pod: PodView, *, first: bool = False) -> None:
        pods.attach(netlink, pods.PodEnd.of(pod), self.settings.mtu, first=first)
        self._attached[pod.name] = pod

    def _ours(self, link: str) -> bool:
        return link == self.settings.tun or is_pod_link(link)

    def _forget(self, local: Mapping[str, PodView]) -> None:
        for name in self._attached.keys() - local.keys():
            pods.remove_own_namespace(self._attached.pop(name).netns)

    # -- pods that come and go -------------------------------------------------------------------

    def change(
        self, netlink: Netlink, snapshot: LocalView, coming: Sequence[PodView], going: Sequence[str]
    ) -> dict[str, KernelError]:
        """Disconnect pods, and connect others, namespaces and all.

        Packets of those that came can flow when it returns. A pod that cannot be connected leaves
        nothing.

        Args:
            netlink: of the node's namespace.
            snapshot: what shall be afterwards: with those that come, without those that go.
            coming: local pods; no name twice.
            going: names of pods; none that comes.

        Returns:
            What went wrong, by pod.

        Raises:
            KernelError: the kernel does not answer. Nothing else.
        """
        failed: dict[str, KernelError] = {}
        for name in going:
            with _noted(failed, name):
                pods.detach(netlink, name)
        existed = {pod.name for pod in coming if pod.netns and netns.exists(pod.netns)}
        for pod in coming:
            with _noted(failed, pod.name):
                self._check_ports(pod)
                pods.make_own_namespace(pod.netns)
        # Before the first veth: no packet goes unchecked.
        why = self._hold(_without(snapshot, failed))
        for pod in coming:
            if pod.name not in failed:
                with _noted(failed, pod.name):
                    _need_rules(pod, why)
                    self._connect(netlink, pod, first=True)
        desired = self._desired(snapshot)
        refused = _reach(netlink, desired, netlink.read(self._ours, desired.sysctls))
        for pod in coming:
            _blame(failed, pod.name, refused)
            if pod.name in failed:
                with _noted(failed, pod.name):
                    self._undo(netlink, pod, existed=pod.name in existed)
        if failed:
            self._hold(_without(snapshot, failed))  # their ports are the machine's again
        for name in going:
            left = self._attached.pop(name, None)
            if left is not None:
                with _noted(failed, name):
                    pods.remove_own_namespace(left.netns)
        return failed

    def check(self, netlink: Netlink, snapshot: LocalView, pod: PodView) -> None:
        """See that a pod is connected, and connect it again where it is not.

        Raises:
            KernelError: it is not, and cannot be; what is left of it stays. Nothing else.
        """
        _need_rules(pod, self._hold(snapshot))
        desired = self._desired(snapshot)
        self._connect(netlink, pod)
        failed: dict[str, KernelError] = {}
        refused = _reach(netlink, desired, netlink.read(self._ours, desired.sysctls))
        _blame(failed, pod.name, refused)
        if failed:
            raise failed[pod.name]

    def _check_ports(self, pod: PodView) -> None:
        """A port that somebody listens on is refused; one that a pod has already stays."""
        for port in pod.attachment.ports if pod.name not in self._attached else ():
            held = taken_by_socket(port)
            if held is not None:
                where = f"port {port.host_port}/{port.protocol} of this node"
                why = f"{where} is in use by a program that listens at {held}"
                raise KernelError(why, "stop it, or choose another port", "port-taken")

    def _undo(self, netlink: Netlink, pod: PodView, *, existed: bool) -> None:
        self._attached.pop(pod.name, None)
        pods.detach(netlink, pod.name)
        if not existed:
            pods.remove_own_namespace(pod.netns)

    # -- looking ---------------------------------------------------------------------------------

    def present(self, netlink: Netlink, held: Mapping[str, str]) -> frozenset[str]:
        """Those pods of `held` (name to namespace) that have a namespace, or a veth into one.

        One without a path to its namespace has been handed over: it is there while its veth is. So
        is one whose path names a process: another process may have that number now.

        Raises:
            KernelError: the kernel does not answer. Nothing else.
        """
        veths = self.veths(netlink)
        return frozenset(
            name
            for name, path in held.items()
            if veth_name(name) in veths
            or (path and not pods.is_of_a_process(path) and not netns.is_gone(path))
        )

    def veths(self, netlink: Netlink) -> dict[str, str | None]:
        """Host ends of veths, and the pods' names as far as they are known.

        Raises:
            KernelError: the kernel does not answer. Nothing else.
        """
        links = netlink.read(is_veth_name, ()).links
        return {name: link.alias for name, link in links.items()}

    # -- the end ---------------------------------------------------------------------------------

    def remove_everything(self, netlink: Netlink) -> None:
        """Take away veths, routes, rules and the namespaces that were made for pods.

        Raises:
            KernelError: the kernel refused. Nothing else.
        """
        failed = _reach(netlink, _NOTHING, netlink.read(self._ours, ()))
        self._forget({})
        self._firewall.remove()
        if failed:
            raise failed[0][1]


def _need_rules(pod: PodView, why: str) -> None:
    if why and pod.attachment.ports:
        raise KernelError(f"ports of the node cannot lead to pods ({why})", GET_NFT, "no-nft")


def _without(snapshot: LocalView, names: Container[str]) -> LocalView:
    """The snapshot without the local pods of these names."""
    kept = tuple(pod for pod in snapshot.pods if not (pod.local and pod.name in names))
    return replace(snapshot, pods=kept)


@contextmanager
def _noted(failed: dict[str, KernelError], pod: str) -> Iterator[None]:
    try:
        yield
    except KernelError as error:
        failed.setdefault(pod, error)


def _blame(
    failed: dict[str, KernelError], pod: str, refused: Iterable[tuple[Change, KernelError]]
) -> None:
    """A pod has failed for what the kernel refused of its own link.

    What else it refuses is not this pod's affair; `settle` reports it.
    """
    for change, error in refused:
        if veth_name(pod) in str(change):
            failed.setdefault(pod, error)


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


def _detached(pod: PodView, error: KernelError) -> Problem:
    """A pod that cannot be connected. Without a namespace only its address is left of it."""
    lost = error.code == pods.LINK_LOST if pod.attachment.handed else netns.is_gone(pod.netns)
    if not lost:
        return problem_of("pod-detached", f"pod {pod.name} is not connected", error)
    fix = f"muslin pod del {pod.name}, or muslin ipam check --fix"
    what = "link" if pod.attachment.handed else "namespace"
    return Problem("pod-lost", f"pod {pod.name} has lost its {what}", error.why, fix)


def _overlap(prefix: Prefix, route: HostRoute) -> Problem:
    return Problem(
        "route-overlaps-host",
        f"packets to {prefix} do not take the pod network",
        f"this machine has the route {route} of its own",
        "remove that route, or leave it: packets go where it leads",
    )


def problem_of(code: str, what: str, error: KernelError) -> Problem:
    """A problem whose reason the kernel gave."""
    return Problem(code=code, what=what, why=error.why, fix=error.fix)
