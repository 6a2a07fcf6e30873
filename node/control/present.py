"""Turns the engine's views into the objects that users and programs see. The only place that does.

Keys are promises (lower case, never renamed). Durations are seconds, sizes are bytes, moments are
RFC 3339 in UTC. What is unknown is null, never left out, so that a program can rely on every key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from node.control.attachments import present_attachment
from node.kernel.guard import GuardFacts
from node.kernel.model import GATEWAY, GATEWAY6, peer_name, veth_macs, veth_name
from overlay.audit import Finding
from overlay.types import Address, Endpoint, Prefix
from overlay.views import (
    BlockView,
    LedgerView,
    NodeState,
    NodeView,
    PodView,
    Problem,
    ReservationView,
    RouteView,
    SessionView,
    Snapshot,
    TokenView,
)

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """One process that carries packets.

    Attributes:
        lane: its number; 0 is the daemon.
        pid: its process id; None while there is no process.
        port: its UDP port.
        state: `up`, `starting`, or `waiting` for the next try.
        restarts: how often it was replaced.
        cpu_seconds: processor time of all its processes so far.
    """

    lane: int
    pid: int | None
    port: int
    state: str
    restarts: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What the status says of the process around the engine.

    Attributes:
        epoch: Unix seconds at monotonic zero.
        started: monotonic seconds of the daemon's start.
        pid: its process id.
        version: of the software.
        offloads: what the kernel does for us (`udp_gso`, ...), as the ports found out.
        problems: those the engine cannot see (kernel state, disk).
        lanes: the processes that carry packets, this one first.
        guard: who checks what pods send.
        mtu: what pods see.
    """

    epoch: float
    started: float
    pid: int
    version: str
    offloads: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    lanes: tuple[LaneFacts, ...] = ()
    guard: GuardFacts = field(default_factory=GuardFacts)
    mtu: int = 0


def moment(unix: float) -> str:
    """Unix seconds as RFC 3339.

    >>> moment(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    text = datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def present_node(node: NodeView) -> Json:
    """A row of `get nodes`."""
    return {
        "name": node.name,
        "state": str(node.state),
        "address": _text(node.address),
        "address6": _text(node.address6),
        "endpoint": _text(node.endpoint),
        "blocks": [_prefix(block) for block in node.blocks],
        "pods": node.pods,
        "version": node.version,
        "path": node.path,
        "rtt": _rounded(node.rtt, 6),
        "loss": _rounded(node.loss, 3),
        "seen": _rounded(node.seen, 3),
        "local": node.local,
        "conflict": node.conflict,
        "certificate_expires": None if node.expires is None else moment(node.expires),
        "id": node.id.hex(),
    }


def present_token(token: TokenView) -> Json:
    """A row of `token list`."""
    return {
        "id": token.id.hex(),
        "state": str(token.state),
        "expires": moment(token.expires),
        "node": token.node or None,
        "made": moment(token.made),
        "routes": [_prefix(prefix) for prefix in token.routes],
    }


def present_pod(pod: PodView, wall: float) -> Json:
    """A row of `get pods`; `wall` is the present in Unix seconds.

    What only the pod's own node knows is null for others.
    """
    said = present_attachment(pod.attachment)
    return {
        "name": pod.name,
        "node": pod.node,
        "address": str(pod.address),
        "address6": _text(pod.address6),
        "netns": pod.netns or None,
        "state": pod.state,
        "age": round(max(0.0, wall - pod.since), 3),
        "created": moment(pod.since),
        "local": pod.local,
        "owner": pod.owner or None,
        "link": veth_name(pod.name) if pod.local else None,
        **(said if pod.local else dict.fromkeys(said)),
    }


def present_wire(pod: PodView, mtu: int) -> Json:
    """What a runtime must know of a pod's interface, beside what `present_pod` shows."""
    return {
        "peer": peer_name(pod.name) if pod.attachment.handed else None,
        "mac": veth_macs(pod.name).pod,
        "link_mac": veth_macs(pod.name).host,
        "mtu": mtu,
        "gateway": str(GATEWAY),
        "gateway6": None if pod.address6 is None else str(GATEWAY6),
    }


def present_reservation(held: ReservationView) -> Json:
    """An address that is held for an owner."""
    return {
        "owner": held.owner,
        "address": str(held.address),
        "address6": _text(held.address6),
        "pod": held.pod or None,
        "since": moment(held.since),
    }


def present_route(route: RouteView, now: float) -> Json:
    """A row of `get routes`; `now` is the present in monotonic seconds."""
    return {
        "prefix": _prefix(route.prefix),
        "node": route.node,
        "via": _text(route.via),
        "origin": route.origin,
        "state": "stale" if route.stale else "live",
        "age": round(max(0.0, now - route.since), 3),
    }


def present_session(session: SessionView, epoch: float, offloads: tuple[str, ...]) -> Json:
    """A row of `get sessions`.

    `epoch` is Unix seconds at monotonic zero; `offloads` what the ports do now, which may be less
    than what the peers were tried with.
    """
    return {
        "node": session.node,
        "endpoint": _text(session.endpoint),
        "cipher": session.cipher,
        "established": moment(epoch + session.established),
        "rekeyed": moment(epoch + session.rekeyed),
        "mtu": session.mtu,
        "mtu_state": session.mtu_state,
        "offloads": [name for name in session.offloads if name in offloads],
        "trial": session.trial or None,
        "tx_bytes": session.tx_bytes,
        "rx_bytes": session.rx_bytes,
        "drops": _counts(session.drops.items()),
        "id": session.id,
    }


def present_block(block: BlockView) -> Json:
    """A row of `get blocks`."""
    return {
        "prefix": _prefix(block.prefix),
        "prefix6": _text(block.prefix6),
        "node": block.node,
        "blocks": block.blocks,
        "state": block.state,
        "pods": block.pods,
    }


def present_ledger(ledger: LedgerView) -> Json:
    """Where everything went: at rest `in == out + queued + sum(drops)`."""
    return {
        "in": ledger.received,
        "out": ledger.sent,
        "queued": ledger.queued,
        "drops": _counts(ledger.drops.items()),
    }


def present_status(snapshot: Snapshot, facts: DaemonFacts) -> Json:
    """What `status` says."""
    problems = [*snapshot.problems, *facts.problems]
    return {
        "node": snapshot.name,
        "cluster": snapshot.cluster,
        "state": "problem" if problems else "ready",
        "address": _text(snapshot.address),
        "address6": _text(snapshot.address6),
        "cidr": str(snapshot.cidr),
        "cidr6": _text(snapshot.cidr6),
        "nodes": {
            str(state): sum(node.state is state for node in snapshot.nodes) for state in NodeState
        },
        "pods": sum(pod.local for pod in snapshot.pods),
        "problems": [_present_problem(problem) for problem in problems],
        "notices": [_present_problem(notice) for notice in snapshot.notices],
        "ledger": present_ledger(snapshot.ledger),
        "gossip": dict(snapshot.gossip),
        "offloads": list(facts.offloads),
        "lanes": [_present_lane(lane) for lane in facts.lanes],
        "guard": {
            "by": facts.guard.by,
            "why": facts.guard.why or None,
            "drops": _counts(facts.guard.drops.items()),
        },
        "certificate_expires": moment(snapshot.expires),
        "certificate_expiry_seconds": round(snapshot.expires - facts.epoch - snapshot.now, 3),
        "version": facts.version,
        "pid": facts.pid,
        "started": moment(facts.epoch + facts.started),
        "uptime": round(snapshot.now - facts.started, 3),
    }


def _present_lane(lane: LaneFacts) -> Json:
    return {
        "lane": lane.lane,
        "pid": lane.pid,
        "port": lane.port,
        "state": lane.state,
        "restarts": lane.restarts,
        "cpu_seconds": round(lane.cpu_seconds, 3),
    }


def _present_problem(problem: Problem) -> Json:
    return {"code": problem.code, "what": problem.what, "why": problem.why, "fix": problem.fix}


def present_finding(finding: Finding, *, fixed: bool) -> Json:
    """One thing that `ipam check` found; `frees` is the pod whose addresses `--fix` frees."""
    return {
        "code": finding.code,
        "what": finding.what,
        "why": finding.why,
        "fix": finding.fix,
        "frees": finding.pod or None,
        "fixed": fixed,
    }


def present_stray(link: str) -> Json:
    """A veth that belongs to no pod; the daemon removes it by itself."""
    what, why = f"a veth of pod {link} is there", "this node has no such pod"
    return present_finding(Finding("veth-stray", what, why, "look again in a moment"), fixed=False)


Presenter = Callable[[Snapshot, DaemonFacts], list[Json]]

KINDS: Final[dict[str, Presenter]] = {
    "nodes": lambda shot, _: [present_node(node) for node in shot.nodes],
    "pods": lambda shot, facts: [present_pod(pod, facts.epoch + shot.now) for pod in shot.pods],
    "routes": lambda shot, _: [present_route(route, shot.now) for route in shot.routes],
    "sessions": lambda shot, facts: [
        present_session(session, facts.epoch, facts.offloads) for session in shot.sessions
    ],
    "blocks": lambda shot, _: [present_block(block) for block in shot.blocks],
}
"""What `get KIND` lists, by kind."""


@lru_cache(maxsize=1 << 15)
def _prefix(prefix: Prefix) -> str:
    """Its text. Making it takes longer than all else about a route, and routes rarely change."""
    return str(prefix)


def _text(value: Address | Prefix | Endpoint | None) -> str | None:
    return None if value is None else str(value)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _counts(items: Iterable[tuple[str, int]]) -> dict[str, int]:
    return {str(reason): count for reason, count in items if count}
