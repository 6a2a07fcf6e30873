"""Builds the `Snapshot` of an engine: copies for tables, JSON and the kernel, nothing live."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from overlay.catalog.blocks import fewest_prefixes
from overlay.ipam.plan import NODE_HOST, BlockPlan
from overlay.problems import notices_of, problems_of
from overlay.state import StoredPod, StoredReservation
from overlay.types import NodeId, Prefix
from overlay.views import (
    LocalView,
    NodeState,
    NodeView,
    PodView,
    ReservationView,
    RouteView,
    SessionView,
    Snapshot,
)
from overlay.wire.handshake import Suite

if TYPE_CHECKING:  # the engine calls this module; the types alone need it back
    from overlay.catalog.records import NodeRecord, PodEntry
    from overlay.catalog.removals import Removal
    from overlay.engine import Engine
    from overlay.gossip.member import MemberView
    from overlay.tenants import Tenants


def take_snapshot(engine: Engine, now: float) -> Snapshot:
    """Everything the engine shows of itself at `now`."""
    parts = engine.parts
    holdings = parts.holdings
    nodes = _nodes(engine, now)
    return Snapshot(
        now=now,
        name=engine.identity.name,
        cluster=engine.cluster.id.hex(),
        cidr=engine.cluster.cidr,
        cidr6=engine.cluster.cidr6,
        address=holdings.address,
        address6=holdings.address6,
        nodes=nodes,
        pods=_pods(engine, {node.id: node for node in nodes}),
        routes=_routes(engine, now),
        sessions=_sessions(engine),
        blocks=parts.catalog.block_views(),
        own_prefixes=_own_prefixes(engine),
        ledger=parts.lanes.books.view(engine.ledger),
        problems=problems_of(engine, nodes, now),
        notices=notices_of(engine),
        outside=parts.outside.others(),
        own_outside=parts.outside.own(),
        gossip={**parts.gossip.counters(), "routes_refused": sum(parts.outside.refusals.values())},
        items=len(parts.store),
        expires=engine.identity.certificate.not_after,
    )


def take_local_view(engine: Engine) -> LocalView:
    """What the kernel must follow. Its cost does not grow with the cluster: it is taken often."""
    holdings, plan = engine.parts.holdings, engine.parts.plan
    return LocalView(
        cidr=engine.cluster.cidr,
        cidr6=engine.cluster.cidr6,
        address=holdings.address,
        address6=holdings.address6,
        own_prefixes=fewest_prefixes(plan, holdings.blocks_in_use),
        pods=tuple(pod_view(pod, engine.identity.name, plan) for pod in holdings.pods.values()),
        outside=engine.parts.outside.others(),
        own_outside=engine.parts.outside.own(),
    )


def pod_view(pod: StoredPod, node: str, plan: BlockPlan) -> PodView:
    """One of this node's own pods."""
    return PodView(
        name=pod.name,
        node=node,
        address=plan.address4(pod.block, pod.host),
        address6=plan.address6(pod.block, pod.host),
        netns=pod.netns,
        state="ready",
        since=pod.since,
        local=True,
        owner=pod.owner,
        attachment=pod.attachment,
    )


def reservation_view(held: StoredReservation, tenants: Tenants, plan: BlockPlan) -> ReservationView:
    """One of this node's reservations."""
    return ReservationView(
        owner=held.owner,
        address=plan.address4(held.block, held.host),
        address6=plan.address6(held.block, held.host),
        since=held.since,
        pod=tenants.holder_of(held),
    )


def _nodes(engine: Engine, now: float) -> tuple[NodeView, ...]:
    members = engine.parts.gossip.snapshot(now)
    records = sorted(engine.parts.catalog.nodes.values(), key=_by_name)
    known = [_node(engine, record, members.get(record.node), now) for record in records]
    own = engine.identity.node
    removed = (_removed(one, own) for one in engine.parts.catalog.removed.values())
    # Behind the living: the name of a removed node may have been given to another.
    return tuple(sorted([*known, *removed], key=lambda view: view.name))


def _removed(removal: Removal, own: NodeId) -> NodeView:
    return NodeView(
        id=removal.node,
        name=removal.name,
        state=NodeState.REMOVED,
        local=removal.node == own,
        address=None,
        address6=None,
        endpoint=None,
        blocks=(),
        pods=0,
        version="",
        path="none",
        rtt=None,
        loss=None,
        seen=None,
    )


def _by_name(record: NodeRecord) -> tuple[str, bool, int]:
    # A name may be given again when its node has left: whoever bears it now is the first of it.
    return record.name, record.left, -record.certificate.serial


def _node(engine: Engine, record: NodeRecord, member: MemberView | None, now: float) -> NodeView:
    parts = engine.parts
    node = record.certificate.node
    local = node == engine.identity.node
    path = parts.paths.get(node)
    state = NodeState.READY if local else NodeState.DEAD if member is None else member.state
    # A session outlives the way it went over by minutes: nothing that is answered, no path.
    reached = path is not None and path.keypair is not None and state is NodeState.READY
    reached = reached and (member is None or member.reached)
    blocks = [] if record.left else list(record.blocks_in_use)
    endpoint = path.endpoint if path else next(iter(record.endpoints), None)
    return NodeView(
        id=node,
        name=record.certificate.name,
        state=NodeState.LEFT if record.left else state,
        local=local,
        address=parts.plan.address4(blocks[0], NODE_HOST) if blocks else None,
        address6=parts.plan.address6(blocks[0], NODE_HOST) if blocks else None,
        endpoint=endpoint,
        blocks=tuple(parts.plan.prefix4(block) for block in blocks),
        pods=len(record.pods),
        version=record.software,
        path="local" if local else "direct" if reached else "none",
        rtt=member.rtt if member else None,
        loss=member.loss if member else None,
        seen=0.0 if local else member.seen if member else None,
        conflict=record.conflict,
        expires=None if record.left else record.certificate.not_after,
    )


def _pods(engine: Engine, nodes: dict[NodeId, NodeView]) -> tuple[PodView, ...]:
    parts = engine.parts
    views = [
        pod_view(pod, engine.identity.name, parts.plan) for pod in parts.holdings.pods.values()
    ]
    for node, pod in parts.catalog.pods():
        if node != engine.identity.node:
            views.append(_remote_pod(pod, nodes[node], parts.plan))
    return tuple(sorted(views, key=lambda view: (view.node, view.name)))


def _remote_pod(pod: PodEntry, node: NodeView, plan: BlockPlan) -> PodView:
    return PodView(
        name=pod.name,
        node=node.name,
        address=plan.address4(pod.block, pod.host),
        address6=plan.address6(pod.block, pod.host),
        netns="",
        state=str(node.state),
        since=pod.since,
        local=False,
    )


def _routes(engine: Engine, now: float) -> tuple[RouteView, ...]:
    parts = engine.parts
    views = []
    vias = {node: path.endpoint for node, path in parts.paths.items()}
    for entry in parts.routes.entries():
        record = parts.catalog.nodes.get(entry.node)
        if entry.node not in vias:  # where its packets would go if there were any
            known = record is not None and entry.node != engine.identity.node
            vias[entry.node] = next(iter(record.endpoints), None) if record and known else None
        views.append(
            RouteView(
                prefix=entry.prefix,
                node=parts.name_of(entry.node),
                via=vias[entry.node],
                origin=entry.origin,
                since=entry.since,
                stale=parts.gossip.state(entry.node, now) is NodeState.DEAD,
            )
        )
    return tuple(views)


def _sessions(engine: Engine) -> tuple[SessionView, ...]:
    parts = engine.parts
    views = []
    for node, path in parts.paths.items():
        if path.keypair is None:
            continue
        others = parts.lanes.books.peer(node)
        drops = others.drops + Counter({str(reason): lost for reason, lost in path.drops.items()})
        views.append(
            SessionView(
                node=parts.name_of(node),
                endpoint=path.endpoint,
                cipher=_CIPHERS[path.keypair.suite],
                established=parts.sessions.established_at(node) or 0.0,
                rekeyed=parts.sessions.rekeyed_at(node) or 0.0,
                mtu=path.path_mtu,
                tx_bytes=path.tx_bytes + others.tx_bytes,
                rx_bytes=path.rx_bytes + others.rx_bytes,
                drops=dict(sorted(drops.items())),
                mtu_state=parts.peering.mtus.state(node),
                offloads=parts.peering.trials.offloads(node),
                trial=parts.peering.trials.state(node),
                id=node.hex(),
            )
        )
    return tuple(sorted(views, key=lambda view: view.node))


_CIPHERS = {Suite.AES_256_GCM: "aes-256-gcm", Suite.CHACHA20_POLY1305: "chacha20-poly1305"}


def _own_prefixes(engine: Engine) -> tuple[Prefix, ...]:
    plan = engine.parts.plan
    blocks = engine.parts.holdings.blocks_in_use
    fours: list[Prefix] = [plan.prefix4(block) for block in blocks]
    sixes: list[Prefix] = [p for block in blocks if (p := plan.prefix6(block)) is not None]
    return tuple(fours + sixes)
