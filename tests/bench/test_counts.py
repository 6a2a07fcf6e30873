"""Tests of bench.counts."""

from __future__ import annotations

import pytest

from bench.counts import counts
from node.errors import NodeError


def test_numbers_are_read_in_their_order() -> None:
    assert counts("10", "--nodes") == [10]
    assert counts("1000, 10,1", "--nodes") == [1000, 10, 1]


@pytest.mark.parametrize("text", ["", "many", "10,,20", "1.5", "10,"])
def test_what_is_no_number_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(NodeError, match="--nodes must be numbers with commas"):
        counts(text, "--nodes")


@pytest.mark.parametrize("text", ["0", "10,-1"])
def test_there_is_one_at_least(text: str) -> None:
    with pytest.raises(NodeError, match="--members must be at least 1 each"):
        counts(text, "--members")
