"""Pods through the control socket: what people and container runtimes ask for.

    pod.add     name?, netns?, ip?, ip6?, owner?, handed? and what `node.control.attachments` reads
                give addresses, store, announce, then attach
    pod.del     name | container, interface?, network?
                                                detach, then give back, store, announce
    pod.list                                    the pods of this node; `get` has those of all
    pod.check   container, interface?, netns?   is it attached; repaired first if that can be
    pod.gc      network, keep                   delete the CNI pods of a network that are not kept
    pod.ready                                   whether a pod could be added now
    address..., ipam.check                      see `node.control.addresses`

`pod.add` and `pod.check` answer what `get pods -o json` shows of the pod, and what a runtime needs
to know beside: peer, mac, mtu, gateway, gateway6. Prefix lengths are always 32 and 128.
`repeated` of `pod.add` says that the pod was there already.

Refusals. Codes are stable; a runtime's plugin maps them to its own.

    code                what it means                                          asked again later?
    bad-request         a parameter is missing, or not what it must be         no
    pod-exists          another pod of this node has the name                  no
    exists              the container's interface is in another namespace      no
    other-network       this owner has pods of another network here            no
    port-taken          another pod has that port of the node                  no
    address-not-ours    no address of this node's blocks                       no
    address-taken       somebody has it, reserved it, or gave it back just now no
    address-pair        ip and ip6 are not of one pod                          no
    no-netns            there is no such namespace                             no
    netns-in-use        the namespace has such an interface already            no
    link-lost           the link is gone, and only its runtime can make another no
    not-attached        `pod.check`: the kernel lacks it and that cannot be mended   no
    no-such-pod         `pod.check`, and `pod.del` by name                     no
    not-local           `pod.del`: it is another node's                        no
    no-block            no member has given this node a block yet              yes
    no-free-address     every address is taken, and no block is to be had      yes
    limit-reached       the node's record has no room for another pod          yes
    just-started        others are still asked what they know of this node     yes
    not-stored          the state folder cannot be written                     yes
    tun-gone, kernel-silent   `pod.ready`: packets would not flow              yes
    identity-conflict   two machines are this node: nothing is handed out      an operator must act
    node-left, node-removed   this node is no member any more                  no
    failed, eperm, ...  the kernel refused                                     perhaps

Order is what keeps requests whole. An address is stored before the kernel learns it; if attaching
then fails the address goes back, so a refused request leaves nothing. On removal the kernel comes
first: an address must not be given away while a namespace still answers for it.

A runtime that gave up waiting asks again. So adding what is there, in the same namespace, answers
what is there, and deleting a container's interface that is gone is fine. So is deleting it in
another network than it is in: that network never had it. A runtime that never said that a container
has ended, as `ctr run --detach`, may run another under its name: with the first one's namespace
that pod has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from node.control.addresses import wanted_address
from node.control.attachments import attachment_of
from node.control.growth import patiently
from node.control.params import Params, text
from node.control.ports import DaemonPort
from node.control.present import (
    present_pod,
    present_wire,
)
from node.control.schema import ControlError
from node.control.settling import Settling
from node.control.targets import find_pod
from node.control.turns import Turns
from node.errors import NodeError
from node.kernel.netns import path_of
from node.kernel.pods import own_namespace
from overlay.attachment import DEFAULT_INTERFACE, Attachment
from overlay.errors import OverlayError, RefusedError
from overlay.types import Address
from overlay.views import PodView
from overlay.wire.certificate import check_name

CLI: Final = "cli"
CNI: Final = "cni"
_KERNEL_PROBLEMS: Final = ("tun-gone", "kernel-silent")
MOST_KEPT: Final = 4_096
"""More attachments than a node's record has room for."""


class Pods:
    """These methods.

    Args:
        daemon: what they act on.
        turns: taken by whoever changes pods, see `node.control.turns`.

    Attributes:
        methods: by name.
        settling: does what runtimes asked for while no daemon ran.
    """

    def __init__(self, daemon: DaemonPort, turns: Turns) -> None:
        self._daemon = daemon
        self._turns = turns
        self.settling = Settling(daemon, turns, self._delete)
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "pod.add": self._pod_add,
            "pod.del": self._pod_del,
            "pod.get": self._pod_get,
            "pod.list": self._pod_list,
            "pod.check": self._pod_check,
            "pod.gc": self._pod_gc,
            "pod.ready": self._pod_ready,
        }

    # -- looking -----------------------------------------------------------------------------------

    async def _pod_get(self, params: Params) -> object:
        snapshot = self._daemon.engine.snapshot(self._daemon.now())
        return self._shown(find_pod(snapshot, text(params, "name")))

    async def _pod_list(self, _: Params) -> object:
        return list(map(self._shown, self._daemon.engine.own_pods()))

    async def _pod_ready(self, _: Params) -> object:
        problems = [one for one in self._daemon.facts().problems if one.code in _KERNEL_PROBLEMS]
        if problems:
            code, why, fix = problems[0].code, problems[0].why, problems[0].fix
            return {"ready": False, "code": code, "why": why, "fix": fix}
        try:
            self._daemon.engine.check_ready(self._daemon.now())
        except RefusedError as refused:
            return {"ready": False, "code": refused.code, "why": str(refused), "fix": refused.fix}
        return {"ready": True, "code": None, "why": None, "fix": None}

    def _shown(self, pod: PodView) -> dict[str, object]:
        return present_pod(pod, self._daemon.facts().epoch + self._daemon.now())

    def _wired(self, pod: PodView) -> dict[str, object]:
        facts = self._daemon.facts()
        return present_pod(pod, facts.epoch + self._daemon.now()) | present_wire(pod, facts.mtu)

    # -- adding ------------------------------------------------------------------------------------

    async def _pod_add(self, params: Params) -> object:
        said, owner = attachment_of(params), text(params, "owner", CLI)
        name, wanted = self._name(params, said), wanted_address(self._daemon, params)
        netns = self._namespace(name, text(params, "netns", ""), said)
        await self.settling.settle()
        pod, repeated = await patiently(
            self._daemon, lambda: self._add(name, netns, wanted, owner=owner, attachment=said)
        )
        return self._wired(pod) | {"repeated": repeated}

    def _name(self, params: Params, said: Attachment) -> str:
        name = text(params, "name", "")
        if not name and not said.container:
            raise ControlError("bad-request", "name must be text, or container must say whose")
        return check_name(name) if name else name

    def _namespace(self, pod: str, given: str, said: Attachment) -> str:
        if given:
            return str(path_of(given))
        if said.handed:
            return ""
        if not pod:
            raise ControlError("bad-request", "netns must say where the container is")
        snapshot = self._daemon.engine.snapshot(self._daemon.now())
        return own_namespace(snapshot.name, pod, snapshot.cluster)

    async def _add(
        self, name: str, netns: str, wanted: Address | None, *, owner: str, attachment: Attachment
    ) -> tuple[PodView, bool]:
        """Add a pod in one turn, or find it as it was asked for before; whether it was found."""
        daemon = self._daemon
        async with self._turns.sharing(_key(name, attachment)):
            there = await self._found(attachment, netns)
            if there is not None:
                await daemon.check_pod(there)
                return there, True
            pod, effects = daemon.engine.add_pod(
                name, netns, wanted, daemon.now(), owner=owner, attachment=attachment
            )
            try:
                await daemon.stored(effects)
                await daemon.attach_pod(pod)
            except (NodeError, asyncio.CancelledError):
                await self._take_back(pod.name)
                raise
            return pod, False

    async def _found(self, said: Attachment, netns: str) -> PodView | None:
        """The pod of that container and interface; None if there is none.

        What is left of a container that was there under this name before is removed.
        """
        there = self._daemon.engine.pod_of(said.container, said.interface)
        if there is None or there.netns == netns:
            return there
        if there.name in await self._daemon.present_pods():
            where = there.netns or "another namespace"
            why = f"{said.interface} of that container is pod {there.name} in {where}"
            raise ControlError("exists", why, "delete it first")
        await self._delete(there.name)
        return None

    # -- checking ----------------------------------------------------------------------------------

    async def _pod_check(self, params: Params) -> object:
        container, interface = text(params, "container"), _interface(params)
        async with self._turns.sharing((container, interface)):
            pod = self._daemon.engine.pod_of(container, interface)
            if pod is None:
                why = f"no pod of this node is {interface} of that container"
                raise RefusedError("no-such-pod", why, "add it")
            netns = text(params, "netns", "")
            if netns and str(path_of(netns)) != pod.netns:
                raise ControlError("not-attached", f"pod {pod.name} is in {pod.netns}")
            try:
                await self._daemon.check_pod(pod)
            except NodeError as error:
                raise ControlError("not-attached", error.why, error.fix) from error
            return self._wired(pod)

    # -- deleting ----------------------------------------------------------------------------------

    async def _pod_del(self, params: Params) -> object:
        container, interface = text(params, "container", ""), _interface(params)
        network = text(params, "network", "")
        if not container:
            return _removed(await self._delete_by_name(text(params, "name")))
        async with self._turns.sharing((container, interface)):
            pod = self._daemon.engine.pod_of(container, interface)
            if pod is None or (network and pod.attachment.network != network):
                return {"removed": False, "name": None, "node": None}
            await self._delete(pod.name)
        return _removed(pod)

    async def _delete_by_name(self, name: str) -> PodView:
        while True:
            key = _key_of(self._local(name))
            async with self._turns.sharing(key):
                pod = self._local(name)
                if _key_of(pod) == key:  # else another pod has the name by now
                    await self._delete(pod.name)
                    return pod

    def _local(self, name: str) -> PodView:
        pod = find_pod(self._daemon.engine.snapshot(self._daemon.now()), name)
        if not pod.local:
            why = f"pod {name} is on {pod.node}"
            raise ControlError("not-local", why, f"run the command on {pod.node}")
        return pod

    async def _delete(self, name: str) -> None:
        await self._daemon.detach_pod(name)
        await self._take_back(name)

    async def _take_back(self, name: str) -> None:
        _, effects = self._daemon.engine.remove_pod(name, self._daemon.now())
        await self._daemon.stored(effects)

    async def _pod_gc(self, params: Params) -> object:
        """One that cannot be deleted does not keep the others from it; the last error is told."""
        network, keep = text(params, "network"), _kept(params)
        removed: list[str] = []
        failed: list[OverlayError] = []
        garbage = [
            pod
            for pod in self._daemon.engine.own_pods()
            if (pod.owner, pod.attachment.network) == (CNI, network) and _key_of(pod) not in keep
        ]
        async with asyncio.TaskGroup() as group:
            for pod in garbage:
                group.create_task(self._collect(pod, removed, failed))
        if failed:
            raise failed[-1]
        return {"removed": sorted(removed)}

    async def _collect(self, pod: PodView, removed: list[str], failed: list[OverlayError]) -> None:
        said = pod.attachment
        async with self._turns.sharing(_key_of(pod)):
            there = self._daemon.engine.pod_of(said.container, said.interface)
            if there is None or (there.name, there.since) != (pod.name, pod.since):
                return  # somebody else was faster
            try:
                await self._delete(pod.name)
                removed.append(pod.name)
            except OverlayError as error:
                failed.append(error)


def _removed(pod: PodView) -> dict[str, object]:
    return {"removed": True, "name": pod.name, "node": pod.node}


def _key(name: str, said: Attachment) -> Hashable:
    """What changes of one pod take turns for. A container's pod may get its name in its turn."""
    return (said.container, said.interface) if said.container else name


def _key_of(pod: PodView) -> Hashable:
    return _key(pod.name, pod.attachment)


def _interface(params: Params) -> str:
    return text(params, "interface", "") or DEFAULT_INTERFACE


def _kept(params: Params) -> set[tuple[str, str]]:
    """The attachments that a runtime still knows: container and interface."""
    keep = params.get("keep")
    if not isinstance(keep, list) or len(keep) > MOST_KEPT:
        raise ControlError("bad-request", f"keep must be a list of at most {MOST_KEPT}")
    kept = set()
    for pair in keep:
        match pair:
            case [str(container), str(interface)]:
                kept.add((container, interface))
            case _:
                raise ControlError("bad-request", "keep: [container, interface] is needed")
    return kept
