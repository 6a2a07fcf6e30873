"""What can be done with a lab that is there: look, run something inside, cut, heal, kill, start."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import Any, Final

from node.errors import NodeError
from node.kernel import netns
from node.lab.faults import cut_between, put_in_force
from node.lab.processes import daemon_pid, signal_daemon, start_daemon
from node.lab.readiness import Row, ask, wait_for_daemon
from node.lab.store import Cut, LabInfo, LabStore
from node.lab.topology import LabNode, check_name

KILL_PATIENCE: Final = 10.0
"""How long a daemon may take to end after a signal that ends it."""


def lab_status(name: str, *, store: LabStore | None = None) -> dict[str, Any]:
    """What a lab consists of and how it is, ready for JSON.

    Returns:
        name, state (`up`; `degraded`: a node is not well or does not see all others;
        `incomplete`: it never came up), folder, cluster, underlay, mtu, cidr, cuts (pairs), and
        nodes: each with name, state (`ready`, `problem`, `silent`, `stopped`), pid, underlay,
        address, address6, sees (how many other nodes it sees ready), netns, log, and pods: each
        with name, address, address6, netns.

    Raises:
        ConfigError: that is no name of a lab.
        NodeError: there is no such lab. Nothing else.
    """
    info = (store or LabStore()).load(check_name(name))
    nodes = [_node_status(info, node) for node in info.topology.nodes]
    well = all(node["state"] == "ready" and node["sees"] == len(nodes) - 1 for node in nodes)
    return {
        "name": info.name,
        "state": ("up" if well else "degraded") if info.complete else "incomplete",
        "folder": str(info.folder),
        "cluster": info.cluster,
        "underlay": str(info.topology.underlay),
        "mtu": info.topology.mtu,
        "cidr": info.topology.cidr,
        "cuts": [list(cut) for cut in info.cuts],
        "nodes": nodes,
    }


def _node_status(info: LabInfo, node: LabNode) -> dict[str, Any]:
    pid = daemon_pid(info.state(node.name))
    status: Row = {}
    pods: Sequence[Row] = ()
    sees = 0
    if pid is not None:
        try:
            status = ask(info, node.name, "status")
            pods = ask(info, node.name, "get", kind="pods")
            others = ask(info, node.name, "get", kind="nodes")
            sees = sum(row["state"] == "ready" and row["name"] != node.name for row in others)
        except NodeError:
            status = {"state": "silent"}
    known = {pod["name"]: pod for pod in pods}
    return {
        "name": node.name,
        "state": "stopped" if pid is None else status["state"],
        "pid": pid,
        "underlay": str(node.address.ip),
        "address": status.get("address"),
        "address6": status.get("address6"),
        "sees": sees,
        "netns": node.netns,
        "log": str(info.log(node.name)),
        "pods": [
            {
                "name": pod.name,
                "address": known.get(pod.name, {}).get("address"),
                "address6": known.get(pod.name, {}).get("address6"),
                "netns": pod.netns,
            }
            for pod in node.pods
        ],
    }


def lab_exec(name: str, target: str, argv: Sequence[str], *, store: LabStore | None = None) -> int:
    """Run a command inside a node or a pod, on this terminal; returns its exit code.

    Commands on a node find its daemon: MUSLIN_STATE is set to its folder. A command that was ended
    by signal N gives 128 + N, as in a shell.

    Raises:
        ConfigError: that is no name of a lab.
        NodeError: there is no such lab, node, pod or command. Nothing else.
    """
    info = (store or LabStore()).load(check_name(name))
    namespace = info.topology.namespace_of(target)
    owner = target.partition("-")[0]
    variables = {**os.environ, "MUSLIN_STATE": str(info.state(owner))}
    try:
        process = netns.run_in(namespace, subprocess.Popen, list(argv), env=variables)
    except OSError as error:
        raise NodeError.of(f"running {argv[0]}", error) from error
    code = _wait(process)
    return code if code >= 0 else 128 - code


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the terminal has sent it to the command as well; that decides


def lab_cut(name: str, a: str, b: str, *, store: LabStore | None = None) -> None:
    """Let two nodes no longer hear each other in the underlay. Twice is fine.

    Raises:
        ConfigError: that is no name of a lab.
        NodeError: there is no such lab or node, or no nft. Nothing else.
    """
    store = store or LabStore()
    with store.locked(check_name(name)):
        info = store.load(name)
        _set_cuts(store, info, {*info.cuts, cut_between(info, a, b)})


def lab_heal(
    name: str, a: str | None = None, b: str | None = None, *, store: LabStore | None = None
) -> None:
    """Undo one cut, all cuts of one node (`a` alone), or all cuts. None there is fine.

    Raises:
        ConfigError: that is no name of a lab.
        NodeError: there is no such lab or node, or no nft. Nothing else.
    """
    store = store or LabStore()
    with store.locked(check_name(name)):
        info = store.load(name)
        _set_cuts(store, info, set(info.cuts) - set(_healed(info, a, b)))


def _healed(info: LabInfo, a: str | None, b: str | None) -> Sequence[Cut]:
    if a is None:
        return info.cuts
    if b is None:
        one = info.topology.node(a).name
        return [cut for cut in info.cuts if one in cut]
    return [cut_between(info, a, b)]


def _set_cuts(store: LabStore, info: LabInfo, cuts: set[Cut]) -> None:
    wanted = tuple(sorted(cuts))
    put_in_force(info.topology.bridge_netns, wanted)
    store.save(info, cuts=wanted)


def lab_kill(
    name: str,
    node: str,
    number: signal.Signals = signal.SIGKILL,
    *,
    store: LabStore | None = None,
) -> None:
    """Send a signal to a node's daemon; returns after its end if the signal ends it.

    Raises:
        ConfigError: that is no name of a lab.
        NodeError: there is no such lab or node, it is not running, or does not end. Nothing else.
    """
    info = (store or LabStore()).load(check_name(name))
    state = info.state(info.topology.node(node).name)
    if not signal_daemon(state, number, KILL_PATIENCE):
        fix = f"start it with: muslin lab exec {node} -- muslin up"
        raise NodeError(f"the daemon of {node} is not running", fix, "not-running")


def lab_start(name: str, node: str, *, store: LabStore | None = None) -> None:
    """Start a node's daemon again and wait until it answers. One that runs is fine.

    Raises:
        ConfigError: that is no name of a lab.
        NodeError: there is no such lab or node, or it does not come up. Nothing else.
    """
    store = store or LabStore()
    with store.locked(check_name(name)):
        info = store.load(name)
        found = info.topology.node(node)
        state = info.state(node)
        if daemon_pid(state) is None:
            pid = start_daemon(found.netns, state, info.log(node), info.settings)
            wait_for_daemon(info, node, pid, threading.Event())
