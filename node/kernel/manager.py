"""Keeps the kernel as the snapshot says: what the daemon holds of `node.kernel`.

The daemon calls `apply` whenever the network changed, when somebody else changed anything in the
kernel, and every few seconds: whatever somebody removed or altered is then put right.

    attach_pod -------------------------------> Keeper.change, one run for all that wait
    detach_pod --> their links are removed --'

Pods that come and go while a run is on wait for the next one, and share it: what a change costs is
mostly one transaction of rules and one comparison, whatever the number of pods. The kernel takes
its time to remove a link, some 15 to 25 ms for one or many, and nearly all of that without its
locks. So a thread of its own waits for that, and no pod that comes waits behind one that goes.

`apply` obeys its snapshot to the letter: it connects again a pod that was just detached if the
snapshot still has it. So the daemon lets it run neither beside nor between the two steps of a
change of pods, see `node.control.handlers`.

The methods here run in the daemon's loop, those of `Keeper` in the netlink thread. Both sides
exchange whole, immutable snapshots, so there is nothing to lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from node.errors import NodeError
from node.kernel.egress import EGRESS_TRIAL
from node.kernel.errors import KernelError
from node.kernel.guard import GuardFacts
from node.kernel.keeper import Keeper, Looked
from node.kernel.model import KernelSettings, veth_name
from node.kernel.nft import Firewall
from node.kernel.pods import detach_together
from node.kernel.rules import NEEDS_NFT
from node.kernel.runs import Runs
from node.kernel.thread import KernelThread
from node.kernel.troubles import silent
from node.kernel.watch import ANYTHING, News
from overlay.errors import StateError
from overlay.views import LocalView, PodView


class KernelManager:
    """The node's namespace and the namespaces of its pods.

    Args:
        settings: names and sizes; the TUN interface exists before `apply` is called.
        thread: where netlink is spoken.
        removing: where links of pods are removed. Both stay open: they belong to the caller.
        firewall: checks what pods send; without one only the routes do.
    """

    def __init__(
        self,
        settings: KernelSettings,
        thread: KernelThread,
        removing: KernelThread,
        firewall: Firewall | None = None,
    ) -> None:
        self._firewall = firewall or Firewall("")
        self._keeper = Keeper(settings, self._firewall)
        self._counted: Mapping[str, int] = {}
        self._thread = thread
        self._removing = removing
        self._snapshot: LocalView | None = None
        self._changes = Runs("pods", self._change)
        self._unlinking = Runs("unlinking", self._unlink)

    async def check_egress(self) -> None:
        """Whether pods can be given the node's address, if they shall be.

        Raises:
            NodeError: they cannot (`no-nft`). Nothing else.
        """
        if self._keeper.settings.masquerade:
            why = await self._thread.call(lambda _: self._firewall.why_not(EGRESS_TRIAL))
            if why:
                raise NodeError(f'egress = "masquerade" cannot be had ({why})', NEEDS_NFT, "no-nft")

    def set_masquerade(self, on: bool) -> None:
        """Follow a changed setting, with the next `apply`."""
        self._keeper.settings = replace(self._keeper.settings, masquerade=on)

    async def apply(self, snapshot: LocalView, news: News = ANYTHING) -> Looked:
        """Bring the kernel to what `snapshot` says; returns what could not be done.

        Never raises: a kernel that does not answer is a problem like the others.

        Args:
            snapshot: what shall be.
            news: what others may have changed. Nearly free without any, if the snapshot is as it
                was the last time.
        """
        self._snapshot = snapshot
        try:
            return await self._thread.call(self._keeper.settle, snapshot, news)
        except KernelError as error:
            return Looked((silent(error),), ())

    async def attach_pod(self, pod: PodView) -> None:
        """Connect a pod, namespace and all; packets can flow when it returns.

        Raises:
            KernelError: it cannot be connected; nothing of it is left. Nothing else.
            StateError: `apply` was never called.
        """
        self._known()
        await self._unlinking.passed(pod.name)
        self._snapshot = _with_pods(self._known(), without=pod.name, extra=(pod,))
        try:
            await self._changes.ask(pod.name, pod)
        except KernelError:
            self._snapshot = _with_pods(self._known(), without=pod.name)
            raise

    async def check_pod(self, pod: PodView) -> None:
        """See that a pod is connected, and connect it again where it is not.

        Raises:
            KernelError: it is not, and cannot be; what is left of it stays. Nothing else.
            StateError: `apply` was never called.
        """
        await self._thread.call(self._keeper.check, self._known(), pod)

    async def detach_pod(self, name: str) -> None:
        """Disconnect a pod; its namespace goes too if it was made for it. Twice is fine.

        Raises:
            KernelError: the kernel refused. Nothing else.
            StateError: `apply` was never called.
        """
        self._known()
        await self._unlinking.ask(name, None)
        self._snapshot = _with_pods(self._known(), without=name)
        await self._changes.ask(name, None)

    async def _change(self, pods: Mapping[str, PodView | None]) -> Mapping[str, KernelError]:
        """One run: pods that come, by name, and None for those that go."""
        coming = [pod for pod in pods.values() if pod is not None]
        going = [name for name, pod in pods.items() if pod is None]
        return await self._thread.call(self._keeper.change, self._known(), coming, going)

    async def _unlink(self, pods: Mapping[str, None]) -> Mapping[str, KernelError]:
        """One run: links of pods that go. What is left of them is found, and told, after it."""
        await self._removing.call(detach_together, list(pods))
        return {}

    async def present(self, views: Iterable[PodView]) -> frozenset[str]:
        """Those of these pods that have a namespace, or a veth into one that has lost its name.

        Raises:
            KernelError: the kernel does not answer. Nothing else.
        """
        held = {pod.name: "" if pod.attachment.handed else pod.netns for pod in views}
        return await self._thread.call(self._keeper.present, held)

    async def strays(self) -> tuple[str, ...]:
        """Host ends of veths that belong to no pod: the pods' names, as far as they are known.

        Raises:
            KernelError: the kernel does not answer. Nothing else.
            StateError: `apply` was never called.
        """
        ours = {veth_name(pod.name) for pod in self._known().pods}
        links = await self._thread.call(self._keeper.veths)
        return tuple(sorted(alias or name for name, alias in links.items() if name not in ours))

    @property
    def namespaces(self) -> frozenset[int]:
        """Numbers of the namespaces that pods of this node are in, as of the last look."""
        return self._keeper.namespaces

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
            await self._thread.call(self._keeper.remove_everything)

    def _known(self) -> LocalView:
        if self._snapshot is None:
            raise StateError("apply comes first: addresses and blocks are not known yet")
        return self._snapshot


def _with_pods(snapshot: LocalView, *, without: str, extra: tuple[PodView, ...] = ()) -> LocalView:
    """The snapshot with one local pod left out, and others put in."""
    kept = tuple(pod for pod in snapshot.pods if not (pod.local and pod.name == without))
    return replace(snapshot, pods=kept + extra)
