"""What the netlink thread does to keep the kernel as the snapshot says.

`settle` compares everything, unless neither the wish nor the kernel has changed; there is no list
of what was done before, so a restarted daemon needs none. What it was last asked for it remembers,
to tell what others have changed from what is wished for anew.

`change` is for pods that come and go: all that wait at the same time share one transaction of rules
and one comparison, which are most of the cost.

Errors of one change do not stop the others. They come back as `Problem`s, for `muslin status`.

Everything here blocks and runs in the netlink thread, one call at a time.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple

from node.kernel import netns, pods
from node.kernel.desired import Legs, desired_state
from node.kernel.errors import KernelError
from node.kernel.hostports import shut_sysctls, without_ports
from node.kernel.insides import Insides
from node.kernel.model import (
    KernelSettings,
    KernelState,
    Link,
    is_pod_link,
    is_veth_name,
    veth_name,
)
from node.kernel.netlink import Netlink
from node.kernel.nft import Firewall
from node.kernel.overlap import find_overlap
from node.kernel.reconcile import Change, reconcile, repairs
from node.kernel.rules import GET_NFT, compose, compose_filters, unkept
from node.kernel.sockets import taken_by_socket
from node.kernel.troubles import detached, overlap, refused, tun_gone
from node.kernel.watch import ANYTHING, NO_NEWS, News
from overlay.types import Prefix
from overlay.views import LocalView, PodView, Problem

_NOTHING: Final = KernelState()


class Looked(NamedTuple):
    """What came of a comparison.

    Attributes:
        problems: what could not be done.
        repaired: what somebody else had changed and is as it was again, in words.
    """

    problems: tuple[Problem, ...]
    repaired: tuple[str, ...]


class Keeper:
    """The node's namespace and the namespaces of its pods.

    Args:
        settings: names and sizes.
        firewall: holds the rules; without nft only the routes check anything.

    Attributes:
        settings: may be replaced at any time; the next `settle` obeys.
        namespaces: numbers of the namespaces that pods are in, as of the last reading.
    """

    def __init__(self, settings: KernelSettings, firewall: Firewall) -> None:
        self.settings = settings
        self._firewall = firewall
        self._legs = Legs()
        self._seen: tuple[LocalView, KernelSettings] | None = None  # what all was last compared to
        self._wish: tuple[tuple[LocalView, KernelSettings, bool], KernelState] | None = None
        self._wished: KernelState | None = None  # in the last comparison
        self._overlapping: frozenset[Prefix] = frozenset()  # outside networks the host reaches
        self._overlaps: list[Problem] = []
        self._missing: tuple[Problem, ...] = ()
        self._problems: tuple[Problem, ...] = ()
        self._attached: dict[str, PodView] = {}
        self._found: set[str] = set()  # pods that did not have to be connected
        self._namespaces: Mapping[str, int] = {}
        self.namespaces: frozenset[int] = frozenset()
        self._insides = Insides(settings.mtu)

    # -- all of it -------------------------------------------------------------------------------

    def settle(self, netlink: Netlink, snapshot: LocalView, news: News = ANYTHING) -> Looked:
        """Bring the kernel to what the snapshot says.

        Args:
            netlink: of the node's namespace.
            snapshot: what shall be.
            news: what others may have changed since the last time. Without any, and with the
                same wish, nothing is looked at.

        Raises:
            KernelError: the kernel does not answer; all is compared next time. Nothing else.
        """
        wish = snapshot, self.settings
        news = ANYTHING if self._seen is None else news
        unwell = bool(self._problems) or self._firewall.failed
        if self._seen == wish and news == NO_NEWS and not unwell:
            return Looked((), ())
        local = {pod.name: pod for pod in snapshot.pods if pod.local}
        fresh, self._seen = self._seen != wish, None
        repaired: list[str] = []
        # Rules come before any veth is made.
        if fresh or news.rules or self._firewall.failed:
            why, restored = self._hold(snapshot)
            self._missing = unkept(snapshot, self.settings, why)
            repaired += ["packet filters"] * restored
        if fresh or news.node:
            self._overlaps = self._look_for_overlaps(netlink, snapshot)
        self._problems = (*self._overlaps, *self._missing)
        self._problems += tuple(self._settle(netlink, snapshot, local, repaired))
        found = {name: pod for name, pod in local.items() if name in self._found}
        repaired += self._insides.look(found, self._namespaces, news)
        self._problems += tuple(self._insides.problems.values())
        self._forget(local)
        self._seen = wish
        return Looked(self._problems, tuple(repaired))

    def _hold(self, snapshot: LocalView) -> tuple[str, bool]:
        """Make the rules stand; why not all of them do, and whether somebody had changed them.

        A kernel that cannot translate gets the others: what pods may send is checked in any case.
        """
        restored = self._firewall.hold(compose(snapshot, self.settings))
        why = self._firewall.why
        if self._firewall.failed:
            self._firewall.hold(compose_filters(snapshot, self.settings))
        return why, restored

    def _look_for_overlaps(self, netlink: Netlink, snapshot: LocalView) -> list[Problem]:
        """Outside networks that the machine reaches by itself stay as they are."""
        host = netlink.host_routes() if snapshot.outside else []
        found = {prefix: find_overlap(host, [prefix]) for prefix in snapshot.outside}
        overlaps = {prefix: both[0] for prefix, both in found.items() if both is not None}
        self._overlapping = frozenset(overlaps)
        return [overlap(prefix, route) for prefix, route in overlaps.items()]

    def _desired(self, snapshot: LocalView) -> KernelState:
        kept = tuple(one for one in snapshot.outside if one not in self._overlapping)
        wish = replace(snapshot, outside=kept), self.settings, bool(self._firewall.why)
        if self._wish is None or self._wish[0] != wish:
            self._wish = wish, self._wish_for(wish[0])
        return self._wish[1]

    def _wish_for(self, snapshot: LocalView) -> KernelState:
        if not self._firewall.why:
            return desired_state(snapshot, self.settings, self._legs)
        # Veths are let at 127.0.0.1, by whoever it is, behind a filter only.
        desired = desired_state(without_ports(snapshot), self.settings, self._legs)
        return replace(desired, sysctls={**desired.sysctls, **shut_sysctls(snapshot)})

    def _settle(
        self,
        netlink: Netlink,
        snapshot: LocalView,
        local: Mapping[str, PodView],
        repaired: list[str],
    ) -> Iterator[Problem]:
        """Do what is missing; says what cannot be done, and adds what was put right."""
        desired, tun = self._desired(snapshot), self.settings.tun
        before, self._wished = self._wished, desired
        actual = netlink.read(self._ours, desired.sysctls)
        unwired = [pod for pod in local.values() if not self._is_wired(pod, actual)]
        for pod in unwired:
            lost = pod.name in self._attached
            try:
                self._connect(netlink, pod)
            except KernelError as error:
                self._attached.pop(pod.name, None)
                yield detached(pod, error)
            else:
                repaired += [f"connect pod {pod.name}"] * lost
        if unwired:
            actual = netlink.read(self._ours, desired.sysctls)
        self._found = {pod.name for pod in local.values() if pod not in unwired}
        self._note_namespaces(actual)
        reached = _reach(netlink, desired, actual)
        failed = [error for _, error in reached if error is not None]
        if before is not None:
            done = (change for change, error in reached if error is None)
            repaired += map(str, repairs(done, desired, before))
        if failed:
            yield refused(failed)
        if tun not in actual.links:
            yield tun_gone(tun)

    def _note_namespaces(self, actual: KernelState) -> None:
        self._namespaces = actual.namespaces
        self.namespaces = frozenset(actual.namespaces.values())

    def _is_wired(self, pod: PodView, actual: KernelState) -> bool:
        held = self._attached.get(pod.name)
        if held is None or veth_name(pod.name) not in actual.links:
            return False
        return pods.PodEnd.of(held) == pods.PodEnd.of(pod)

    def _connect(self, netlink: Netlink, pod: PodView, *, first: bool = False) -> None:
        pods.attach(netlink, pods.PodEnd.of(pod), self.settings.mtu, first=first)
        self._attached[pod.name] = pod

    def _ours(self, link: Link) -> bool:
        """A link of another kind that has the name of one of ours is somebody else's."""
        if link.name == self.settings.tun:
            return link.kind == "tun"
        kind = "veth" if is_veth_name(link.name) else "ifb"
        return is_pod_link(link.name) and link.kind == kind

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
            going: names of pods; none that comes. Their links are gone already, or it takes long.

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
        why, _ = self._hold(_without(snapshot, failed))
        for pod in coming:
            if pod.name not in failed:
                with _noted(failed, pod.name):
                    _need_rules(pod, why)
                    self._connect(netlink, pod, first=True)
        self._wished = desired = self._desired(snapshot)
        actual = netlink.read(self._ours, desired.sysctls)
        self._note_namespaces(actual)
        reached = _reach(netlink, desired, actual)
        for pod in coming:
            _blame(failed, pod.name, reached)
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
        _need_rules(pod, self._hold(snapshot)[0])
        desired = self._desired(snapshot)
        self._connect(netlink, pod)
        failed: dict[str, KernelError] = {}
        reached = _reach(netlink, desired, netlink.read(self._ours, desired.sysctls))
        _blame(failed, pod.name, reached)
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
        links = netlink.read(self._ours, ()).links
        return {name: link.alias for name, link in links.items() if is_veth_name(name)}

    # -- the end ---------------------------------------------------------------------------------

    def remove_everything(self, netlink: Netlink) -> None:
        """Take away veths, routes, rules and the namespaces that were made for pods.

        Raises:
            KernelError: the kernel refused. Nothing else.
        """
        reached = _reach(netlink, _NOTHING, netlink.read(self._ours, ()))
        self._forget({})
        self._firewall.remove()
        failed = [error for _, error in reached if error is not None]
        if failed:
            raise failed[0]


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


def _blame(failed: dict[str, KernelError], pod: str, reached: Reached) -> None:
    """A pod has failed for what the kernel refused of its own link.

    What else it refuses is not this pod's affair; `settle` reports it.
    """
    for change, error in reached:
        if error is not None and veth_name(pod) in str(change):
            failed.setdefault(pod, error)


Reached = list[tuple[Change, KernelError | None]]


def _reach(netlink: Netlink, desired: KernelState, actual: KernelState) -> Reached:
    """Do what is missing; each change, with why the kernel refused it, or None."""
    reached: Reached = []
    for change in reconcile(desired, actual):
        try:
            netlink.apply(change)
        except KernelError as error:
            reached.append((change, error))
        else:
            reached.append((change, None))
    return reached
