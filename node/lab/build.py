"""Makes a lab and takes it down.

    folder --> namespaces, underlay --> node1: init, up --> tokens --> the others: join, up (all at
    once) --> pods --> every node sees everything

Each step can fail or be interrupted. The folder is there before the first namespace, so that
`lab_down` always knows what to look for; a build that does not come to its end takes everything
down itself and keeps the logs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Final

from node.errors import NodeError
from node.kernel import netns
from node.kernel.pods import CLUSTER_DIGITS, OWN_PREFIX
from node.lab import readiness
from node.lab.processes import command, end_all, run_command, start_daemon
from node.lab.readiness import Row, ask
from node.lab.store import LabInfo, LabStore
from node.lab.topology import (
    LabNode,
    Topology,
    belongs_to,
    check_name,
    plan,
    underlay_namespace,
)
from node.lab.wiring import namespaces, wire

DEFAULT_CIDR: Final = "10.244.0.0/16"

WHOLE_PATIENCE: Final = 90.0
"""From the last pod until every node sees everything. Gossip needs a second or two, where nobody
else is busy."""

HANDS: Final = 8
"""Nodes brought up at once: enough to keep a few cores busy, and few enough to keep start-up short
for each."""

Progress = Callable[[str], None]


def lab_up(
    name: str,
    nodes: int,
    pods: int,
    *,
    underlay: str = "ipv4",
    mtu: int = 1500,
    cidr: str = DEFAULT_CIDR,
    settings: Mapping[str, str] | None = None,
    progress: Progress = lambda _: None,
    store: LabStore | None = None,
) -> LabInfo:
    """Build a lab; returns when every node sees every other node and every pod.

    Args:
        name: of the lab.
        nodes: how many.
        pods: how many per node.
        underlay: "ipv4" or "ipv6", what the daemons speak among themselves.
        mtu: of the underlay.
        cidr: the cluster's IPv4 range.
        settings: MUSLIN_* variables for all daemons.
        progress: told each finished step, as one clause.
        store: where labs are kept.

    Raises:
        ConfigError: a parameter is out of range.
        NodeError: it exists already, or did not come up; then nothing of it is left but logs.
            Nothing else.
    """
    topology = plan(name, nodes, pods, underlay=underlay, mtu=mtu, cidr=cidr)
    store = store or LabStore()
    if os.geteuid() != 0:
        raise NodeError("a lab needs network namespaces", "run as root", "eperm")
    with store.locked(name):
        _check_free(store, topology)
        info = store.create(topology, settings or {})
        complete = False
        try:
            info = _Build(info, store, progress).run()
            complete = True
        except NodeError as error:
            logs = store.keep_logs(name)
            raise NodeError(
                error.why, error.fix or f"see the logs in {logs}", error.code
            ) from error
        finally:
            if not complete:
                _take_down(store, name)
    return info


def _check_free(store: LabStore, topology: Topology) -> None:
    taken = set(namespaces(topology)).intersection(netns.names())
    if store.exists(topology.name) or topology.bridge_netns in taken:
        fix = f"remove it with: muslin lab down --name {topology.name}"
        raise NodeError(f"lab {topology.name} exists already", fix, "lab-exists")
    if taken:
        why = f"there is a namespace {min(taken)} already"
        raise NodeError(why, "choose another --name, or remove it", "netns-in-use")


class _Build:
    """One run of `lab_up`, from the empty folder on.

    Args:
        info: the lab to build.
        store: where its description is.
        progress: told each finished step.
    """

    def __init__(self, info: LabInfo, store: LabStore, progress: Progress) -> None:
        self._info = info
        self._store = store
        self._progress = progress
        self._abort = threading.Event()

    def run(self) -> LabInfo:
        """Do it all; returns the lab as it is then."""
        topology = self._info.topology
        wire(topology)
        self._progress(f"{len(namespaces(topology))} namespaces are wired")
        first, *others = topology.nodes
        pods = self._found(first)
        self._progress(f"{first.name} has founded the cluster")
        tokens = [str(ask(self._info, first.name, "token")["token"]) for _ in others]
        pods += self._all_at_once(others, tokens)
        readiness.wait_until_whole(self._info, pods, WHOLE_PATIENCE, self._abort)
        self._progress("every node sees every other node and every pod")
        self._info = self._store.save(self._info, complete=True)
        return self._info

    def _found(self, node: LabNode) -> list[Row]:
        self._do(node, "found the cluster", "init", "--cidr", self._info.topology.cidr)
        pods = self._bring_up(node)
        cluster = ask(self._info, node.name, "status")["cluster"]
        self._info = self._store.save(self._info, cluster=cluster)
        return pods

    def _all_at_once(self, nodes: Sequence[LabNode], tokens: Sequence[str]) -> list[Row]:
        pods: list[Row] = []
        with ThreadPoolExecutor(HANDS, thread_name_prefix="lab") as hands:
            joining: dict[Future[list[Row]], LabNode] = {
                hands.submit(self._join, node, token): node
                for node, token in zip(nodes, tokens, strict=True)
            }
            try:
                for future in as_completed(joining):
                    pods += future.result()
                    self._progress(f"{joining.pop(future).name} has joined")
            finally:
                if joining:  # one has failed, or Ctrl-C: the others must not be waited for
                    self._abort.set()
                    hands.shutdown(wait=False, cancel_futures=True)
                    end_all(self._info.folder)
        return pods

    def _join(self, node: LabNode, token: str) -> list[Row]:
        self._do(node, "join", "join", "-", given=token)
        if self._abort.is_set():
            raise NodeError("given up", code="aborted")
        return self._bring_up(node)

    def _do(self, node: LabNode, doing: str, *words: str, given: str = "") -> None:
        argv = command(self._info.state(node.name), *words, "--name", node.name)
        try:
            run_command(node.netns, argv, self._info.settings, given)
        except NodeError as error:
            why = error.why.removeprefix(f"cannot {doing}: ")
            raise NodeError(f"{node.name} cannot {doing}: {why}", error.fix, error.code) from error

    def _bring_up(self, node: LabNode) -> list[Row]:
        bring_up(self._info, node, self._abort)
        return [
            ask(
                self._info, node.name, "pod.add", name=pod.name, netns=str(netns.path_of(pod.netns))
            )
            for pod in node.pods
        ]


def bring_up(info: LabInfo, node: LabNode, abort: threading.Event) -> None:
    """Start a node's daemon and wait until it has an address.

    Raises:
        NodeError: it did not come up. Nothing else.
    """
    pid = start_daemon(node.netns, info.state(node.name), info.log(node.name), info.settings)
    readiness.wait_for_daemon(info, node.name, pid, abort)


def lab_down(name: str, *, store: LabStore | None = None) -> bool:
    """Remove a lab, whole, half-built or dead: processes, namespaces, folder.

    Returns:
        False when there was nothing to remove.

    Raises:
        ConfigError: that is no name of a lab.
        NodeError: another command is busy with it, or something cannot be removed. Nothing else.
    """
    check_name(name)
    store = store or LabStore()
    with store.locked(name):
        # Namespaces of the right names alone are no lab: somebody else may have made them.
        if not store.exists(name) and not netns.exists(underlay_namespace(name)):
            return False
        _take_down(store, name)
    return True


def _take_down(store: LabStore, name: str) -> None:
    cluster = _cluster_of(store, name)
    end_all(store.folder(name))
    for namespace in netns.names():
        if _is_part(namespace, name, cluster):
            netns.delete(namespace)
    store.remove(name)
    netns.delete(underlay_namespace(name))


def _cluster_of(store: LabStore, name: str) -> str:
    try:
        return store.load(name).cluster
    except NodeError:
        return ""


def _is_part(namespace: str, name: str, cluster: str) -> bool:
    """Whether a namespace goes with the lab, before that of the underlay does."""
    made_for_pods = f"{OWN_PREFIX}{cluster[:CLUSTER_DIGITS]}-"
    if cluster and namespace.startswith(made_for_pods):
        return True
    return belongs_to(name, namespace) and namespace != underlay_namespace(name)
