"""The version shown to others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from node import version
from node.version import software_version


@pytest.fixture(autouse=True)
def _not_looked_up_yet() -> Iterator[None]:
    software_version.cache_clear()
    yield
    software_version.cache_clear()


def test_it_is_the_installed_distributions(monkeypatch) -> None:
    monkeypatch.setattr(version, "DISTRIBUTION", "pytest")
    assert software_version()[0].isdigit()


def test_a_bare_source_tree_has_none(monkeypatch) -> None:
    monkeypatch.setattr(version, "DISTRIBUTION", "muslin-that-nobody-installed")
    assert software_version() == "unknown"
