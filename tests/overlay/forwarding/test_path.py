from __future__ import annotations

import pytest

from overlay.forwarding.path import BASE_PATH_MTU, PeerPath
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import PACKED_BURST
from overlay.wire.header import HEADER_SIZE

NODE = NodeId(bytes(32))
V4, V6 = Endpoint("192.0.2.1", 1), Endpoint("2001:db8::1", 1)


def test_a_new_path_fits_every_network_there_is():
    """IPv6 promises 1280 bytes and nothing more; its headers are the larger ones."""
    path = PeerPath(NODE)
    assert path.path_mtu == BASE_PATH_MTU == 1280
    assert path.payload == 1280 - 40 - 8 - HEADER_SIZE
    assert path.endpoint is None
    assert path.keypair is None


@pytest.mark.parametrize(("endpoint", "headers"), [(V4, 28), (V6, 48), (None, 48)])
@pytest.mark.parametrize("path_mtu", [1280, 1400, 1500, 9000])
def test_segments_fill_the_path(endpoint: Endpoint | None, headers: int, path_mtu: int):
    path = PeerPath(NODE)
    path.use(endpoint, path_mtu)
    assert (path.endpoint, path.path_mtu) == (endpoint, path_mtu)
    assert path.payload + HEADER_SIZE + headers == path_mtu


def test_the_packing_buffer_is_made_once_and_only_when_needed():
    path = PeerPath(NODE)
    assert path.buffer is None
    buffer = path.packing_buffer()
    assert len(buffer) == PACKED_BURST
    assert not buffer.readonly
    assert path.packing_buffer() is buffer


def test_paths_share_nothing():
    first, second = PeerPath(NODE), PeerPath(NODE)
    assert first.packing_buffer() is not second.packing_buffer()
    assert first.queue is not second.queue
    assert first.drops is not second.drops
