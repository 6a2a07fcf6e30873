"""What the daemon checks before it starts; what it does once it runs is proven in tests/netns."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_network
from unittest.mock import AsyncMock, Mock

import pytest

from node import daemon, edges
from node.config import NodeConfig
from node.errors import NodeError
from node.founding import found_node, store_node
from node.handover.succession import Succession
from node.handover.taker import Estate
from node.identity import StoredNode
from node.loop import LoopKind
from node.state import STATE, StateFolder
from node.systemd import Notifier
from overlay.catalog.removals import Removal, sign_removal
from overlay.errors import ConfigError, OverlayError


@pytest.fixture
def folder(tmp_path) -> StateFolder:
    folder = StateFolder(tmp_path / "node")
    folder.create()
    return folder


def founded() -> StoredNode:
    return found_node(
        "vm1",
        cidr=ip_network("10.244.0.0/16"),
        cidr6=None,
        block_prefix=24,
        entropy=os.urandom,
        wall=1_700_000_000.0,
    )


def test_a_folder_without_a_node_is_refused_with_what_to_do(folder):
    with pytest.raises(ConfigError, match="holds no node yet: run muslin init"):
        daemon.run(NodeConfig(), folder, NodeConfig)


def test_a_node_that_has_left_does_not_come_back_to_life(folder):
    node = founded()
    state = replace(node.state, left=True, told=True)
    store_node(folder, replace(node, state=state), None)
    with pytest.raises(NodeError, match="has left its cluster") as caught:
        daemon.run(NodeConfig(), folder, NodeConfig)
    assert "join again" in caught.value.fix


def test_a_node_that_was_removed_does_not_come_back_to_life(folder):
    node = founded()
    assert node.authorities
    word = Removal(node.identity.node, 1, "node1", 1_800_000_000)
    item = sign_removal(node.authorities[0], word, cluster=node.cluster.id)
    store_node(folder, replace(node, state=replace(node.state, items=(item,))), None)
    with pytest.raises(NodeError, match="was removed from its cluster") as caught:
        daemon.run(NodeConfig(), folder, NodeConfig)
    assert "join again" in caught.value.fix


def test_two_daemons_never_share_a_folder(folder):
    store_node(folder, founded(), None)
    with folder.locked(), pytest.raises(OverlayError, match="in use"):
        daemon.run(NodeConfig(), folder, NodeConfig)


@pytest.mark.parametrize("loop", list(LoopKind))
def test_a_taken_port_stops_the_start_before_anything_is_stored(folder, loop, monkeypatch):
    """The state file is the witness: an engine that starts writes its boot counter first."""
    store_node(folder, founded(), None)
    before = (folder.path / STATE.name).read_bytes()

    def taken(*_: object, **__: object) -> None:
        raise NodeError("UDP port 6875 is in use", "choose another port")

    monkeypatch.setattr(edges, "UdpSocket", taken)
    with pytest.raises(NodeError, match="in use"):
        daemon.run(NodeConfig(loop=loop), folder, NodeConfig)
    assert (folder.path / STATE.name).read_bytes() == before


class WithoutAMachine(daemon.Daemon):
    """A daemon whose edges are nothing, and whose upkeep of the kernel has a defect."""

    async def _open(self, stack: AsyncExitStack) -> dict[str, int]:
        self.engine = Mock()
        self.edges = Mock()
        self.edges.udp.local.port = 6875
        self._writer = Mock()
        self.driver = Mock(stop=AsyncMock())
        self._around = Mock(follow=AsyncMock())
        self._upkeep = Mock(apply=AsyncMock(), run=AsyncMock(side_effect=ZeroDivisionError))
        return {}

    def _make_lanes(self) -> Mock:
        return Mock(close=AsyncMock())

    async def present_pods(self) -> frozenset[str]:
        return frozenset()

    def _announce_ready(self) -> None:
        """Nobody listens."""


def test_a_daemon_that_ends_for_a_defect_fails_so_that_it_is_started_again(folder):
    first = Succession(-1, Estate({}, None), Notifier({}))
    node = WithoutAMachine(NodeConfig(), folder, founded(), NodeConfig, first)

    async def serve() -> None:
        async with asyncio.timeout(30.0):
            await node.serve()

    with pytest.raises(NodeError, match="its task kernel has a defect"):
        asyncio.run(serve())
    assert not folder.socket.exists()  # everything was stopped in order all the same
