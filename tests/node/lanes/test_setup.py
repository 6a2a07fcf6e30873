"""What a lane is told first."""

from __future__ import annotations

import pytest

from node.lanes.setup import ASK, LaneSetup
from overlay.errors import WireError
from overlay.lanes.messages import decode_order
from overlay.wire.packing import pack

SETUP = LaneSetup(
    lane=2,
    local=b"n" * 32,
    host="::",
    port=6877,
    tun="muslin0",
    offloads=["udp_gro", "checksum", "tso"],
    loop="uvloop",
    log_level="info",
    log_format="text",
)


def test_it_arrives_as_it_was_given() -> None:
    assert LaneSetup.decode(SETUP.encode()) == SETUP


@pytest.mark.parametrize("data", [b"", pack([1, 2]), pack("setup")])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        LaneSetup.decode(data)


def test_a_question_is_no_order() -> None:
    with pytest.raises(WireError):
        decode_order(ASK)
