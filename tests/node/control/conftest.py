"""A daemon to ask, for tests that need none of their own."""

from __future__ import annotations

import pytest

from tests.support.daemon import FakeDaemon


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()
