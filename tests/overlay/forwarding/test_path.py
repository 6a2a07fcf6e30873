from __future__ import annotations

import pytest

from overlay.forwarding.path import BASE_PATH_MTU, PeerPath
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import MAX_RUN, MAX_SEGMENTS, TAG_SIZE
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


@pytest.mark.parametrize("path_mtu", [1280, 1500, 9000, 65_535])
def test_a_burst_fills_one_send_and_no_more(path_mtu: int):
    path = PeerPath(NODE)
    path.use(Endpoint("192.0.2.1", 1), path_mtu)
    step = path.payload + HEADER_SIZE
    segments = -(-(path.burst + TAG_SIZE) // path.payload)
    assert segments <= MAX_SEGMENTS
    assert segments == 1 or path.burst + TAG_SIZE + segments * HEADER_SIZE <= MAX_RUN
    assert segments == MAX_SEGMENTS or (segments + 1) * step > MAX_RUN


def test_paths_share_nothing():
    first, second = PeerPath(NODE), PeerPath(NODE)
    assert first.spans is not second.spans
    assert first.queue is not second.queue
    assert first.drops is not second.drops
