"""When is a lab up? When every node says so, asked through its control socket.

A lab is whole when every node sees every other node ready and has a route of the right node to
every pod, both families. Nothing sleeps for a fixed time: each node is asked again until it is
whole, or until patience ends; then the first thing that is missing is the error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from node.control.client import ControlClient
from node.control.schema import ControlError
from node.errors import NodeError
from node.lab.processes import has_ended
from node.lab.store import LabInfo

POLL: Final = 0.05
"""Between two questions to one node: short against a start, long against an answer."""

START_PATIENCE: Final = 90.0
"""A daemon starts in about a second; eight at once on busy cores take half a minute."""

Row = Mapping[str, Any]
"""One object of an answer; what is missing in it is an error of the daemon's."""


def ask(info: LabInfo, node: str, method: str, **params: object) -> Any:  # noqa: ANN401 - JSON
    """Ask a node's daemon.

    Raises:
        NodeError: it does not answer, or refuses. Nothing else.
    """
    try:
        return ControlClient(info.socket(node)).call(method, **params)
    except ControlError as error:
        raise NodeError(f"{node}: {error.message}", error.fix, error.code) from error


def wait_until(done: Callable[[], str], patience: float, abort: threading.Event) -> None:
    """Ask `done` what is missing until it says nothing.

    Raises:
        NodeError: something was missing for all of `patience`, or `abort` was set. And what
            `done` raises.
    """
    deadline = time.monotonic() + patience
    while missing := done():
        if time.monotonic() > deadline:
            raise NodeError(f"{missing}, after {patience:g} s", code="timeout")
        if abort.wait(POLL):
            raise NodeError(f"given up while {missing}", code="aborted")


def wait_for_daemon(info: LabInfo, node: str, pid: int, abort: threading.Event) -> None:
    """Wait until a daemon that was just started has an address in the pod network.

    Raises:
        NodeError: it ended, or takes too long. Nothing else.
    """

    def missing() -> str:
        if has_ended(pid):
            said = last_line(info.log(node))
            raise NodeError(f"the daemon of {node} ended: {said}", code="not-running")
        try:
            address = ask(info, node, "status")["address"]
        except NodeError as error:
            return f"{node} does not answer" if error.code == "not-running" else error.why
        return "" if address else f"{node} has no address block yet"

    wait_until(missing, START_PATIENCE, abort)


def last_line(log: Path) -> str:
    """The last thing a daemon said, as one clause."""
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix("muslin: ") if lines else "it said nothing"


@dataclass(frozen=True, slots=True)
class View:
    """What one node knows."""

    nodes: Sequence[Row]
    routes: Sequence[Row]
    pods: Sequence[Row]


def what_is_missing(node: str, view: View, nodes: Iterable[str], pods: Iterable[Row]) -> str:
    """The first thing that keeps a node from being whole, as one clause; empty when it is.

    Args:
        node: whose view it is.
        view: what it knows.
        nodes: the names of all nodes.
        pods: all pods: name, node, address, address6.
    """
    states = {row["name"]: row["state"] for row in view.nodes}
    for other in nodes:
        state = states.get(other)
        if other != node and state != "ready":
            return f"{node} sees {other} as {state}" if state else f"{node} does not know {other}"
    routes = [(ip_network(row["prefix"]), row["node"]) for row in view.routes]
    for pod in pods:
        for address in filter(None, (pod["address"], pod["address6"])):
            if pod["node"] != node and not _is_routed(address, pod["node"], routes):
                return f"{node} has no route to {address} of pod {pod['name']}"
    # A node announces its pods a moment after its block: the route may be there before them.
    listed = {(row["node"], row["name"]) for row in view.pods}
    unlisted = (pod for pod in pods if (pod["node"], pod["name"]) not in listed)
    return next((f"{node} does not know pod {pod['name']}" for pod in unlisted), "")


def _is_routed(address: str, owner: str, routes: Iterable[tuple[Any, str]]) -> bool:
    wanted = ip_address(address)
    return any(name == owner and wanted in prefix for prefix, name in routes)


def wait_until_whole(
    info: LabInfo, pods: Sequence[Row], patience: float, abort: threading.Event
) -> None:
    """Wait until every node is whole.

    Args:
        info: the lab.
        pods: as in `what_is_missing`.
        patience: seconds for all nodes together.
        abort: ends the waiting.

    Raises:
        NodeError: something is still missing after `patience`. Nothing else.
    """
    names = [node.name for node in info.topology.nodes]
    deadline = time.monotonic() + patience
    for name in names:

        def missing(name: str = name) -> str:
            view = View(
                *[ask(info, name, "get", kind=kind) for kind in ("nodes", "routes", "pods")]
            )
            return what_is_missing(name, view, names, pods)

        wait_until(missing, max(0.0, deadline - time.monotonic()), abort)
