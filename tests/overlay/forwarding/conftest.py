"""The ends of a packet's journey, new for each test."""

from __future__ import annotations

import pytest

from tests.support.pair import Alice, Pair


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def alice() -> Alice:
    return Alice()
