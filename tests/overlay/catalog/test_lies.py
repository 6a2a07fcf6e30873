"""Tests of overlay.catalog.lies."""

from __future__ import annotations

import pytest

from overlay.catalog.lies import Lie, lie_of
from overlay.errors import (
    AuthError,
    CapacityError,
    ForgedError,
    NewerError,
    OverlayError,
    WireError,
)
from overlay.faults import Fault


@pytest.mark.parametrize(
    ("error", "lie"),
    [
        (ForgedError("no", Fault.FORGED_DEED), Lie(Fault.FORGED_DEED, "no")),
        (WireError("short"), Lie(Fault.MALFORMED_ITEM, "short")),
        (CapacityError("long"), Lie(Fault.MALFORMED_ITEM, "long")),
        (AuthError("expired"), None),
        (NewerError("format 9"), None),
    ],
)
def test_only_what_no_honest_node_sends_is_a_lie(error: OverlayError, lie: Lie | None) -> None:
    assert lie_of(error) == lie
