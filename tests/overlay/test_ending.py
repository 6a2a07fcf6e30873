"""Tests of overlay.ending; what the node does then is in `test_farewell` and `test_removing`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.ending import Ending, ending_of
from overlay.errors import RefusedError
from overlay.types import NodeId

NODE = NodeId(bytes(32))


@pytest.mark.parametrize(
    ("removed", "tombstone", "left", "ending"),
    [
        (False, None, False, None),
        (False, False, False, None),
        (False, True, False, Ending.LEFT),
        (False, True, True, None),  # it knows, so nothing happened behind its back
        (True, None, False, Ending.REMOVED),
        (True, True, True, Ending.REMOVED),
    ],
)
def test_a_membership_ends_by_a_removal_or_by_a_tombstone_that_the_node_did_not_make(
    removed: bool, tombstone: bool | None, left: bool, ending: Ending | None
) -> None:
    nodes = {} if tombstone is None else {NODE: SimpleNamespace(left=tombstone)}
    catalog = SimpleNamespace(removed={NODE} if removed else set(), nodes=nodes)
    assert ending_of(catalog, NODE, left=left) is ending


@pytest.mark.parametrize("ending", list(Ending))
def test_who_is_no_member_is_refused_with_what_happened(ending: Ending) -> None:
    with pytest.raises(RefusedError) as caught:
        ending.refuse()
    assert caught.value.code == f"node-{ending}"
    assert str(caught.value) == ending.what
