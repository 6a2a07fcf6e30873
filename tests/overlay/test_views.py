from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, fields
from ipaddress import ip_address, ip_network

import pytest

from overlay.types import Endpoint, NodeId
from overlay.views import (
    BlockView,
    LedgerView,
    NodeState,
    NodeView,
    PodView,
    Problem,
    RouteView,
    SessionView,
    Snapshot,
)

PROMISED = {
    NodeView: "name state address endpoint blocks pods version path rtt loss seen",
    PodView: "name node address address6 netns state",
    RouteView: "prefix node via origin",
    SessionView: "node endpoint cipher established rekeyed mtu tx_bytes rx_bytes drops",
    LedgerView: "queued drops",
    Problem: "code what why fix",
}
"""What `get ... -o json` and `status -o json` show under the same name."""


@pytest.mark.parametrize("view", PROMISED, ids=lambda view: view.__name__)
def test_a_view_has_the_fields_users_were_promised(view):
    assert set(PROMISED[view].split()) <= {field.name for field in fields(view)}


def test_node_states_are_the_words_of_the_tables():
    assert [str(state) for state in NodeState] == [
        "ready",
        "suspect",
        "dead",
        "left",
        "removed",
    ]
    assert json.dumps(NodeState.READY) == '"ready"'


def snapshot() -> Snapshot:
    """One of each view."""
    cidr, address = ip_network("10.244.0.0/16"), ip_address("10.244.0.1")
    block, endpoint = ip_network("10.244.0.0/24"), Endpoint("192.0.2.1", 1)
    return Snapshot(
        now=1.0,
        name="node1",
        cluster="00" * 8,
        cidr=cidr,
        cidr6=None,
        address=address,
        address6=None,
        nodes=(
            NodeView(
                NodeId(bytes(32)), "node1", NodeState.READY, True, address, None, endpoint,
                (block,), 1, "0.1.0", "local", None, None, 0.0,
            ),
        ),
        pods=(PodView("pod1", "node1", address, None, "", "ready", 0.0, True),),
        routes=(RouteView(block, "node1", endpoint, "block", 0.0),),
        sessions=(SessionView("node2", endpoint, "AES-256-GCM", 0.0, 0.0, 1500, 0, 0, {}),),
        blocks=(BlockView(block, None, "node1", 1, "in-use", 1),),
        own_prefixes=(block,),
        ledger=LedgerView(3, 1, 1, {"no_route": 1}),
    )  # fmt: skip


def test_snapshots_compare_by_value():
    assert snapshot() == snapshot()
    assert asdict(snapshot())["ledger"] == {
        "received": 3, "sent": 1, "queued": 1, "drops": {"no_route": 1}
    }  # fmt: skip


def test_a_snapshot_has_no_problems_unless_told():
    assert snapshot().problems == ()


def test_views_are_frozen():
    seen = snapshot()
    for view in (seen, seen.nodes[0], seen.pods[0], seen.routes[0], seen.ledger):
        with pytest.raises(FrozenInstanceError):
            setattr(view, fields(view)[0].name, None)
