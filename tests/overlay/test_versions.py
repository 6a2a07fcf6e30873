"""Tests of overlay.versions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.types import NodeId
from overlay.versions import LAST_BOOT, Versions

NODE = NodeId(bytes(32))


def known(version: int, *, left: bool = False) -> SimpleNamespace:
    record = SimpleNamespace(version=version, boot=version >> 32, left=left)
    return SimpleNamespace(nodes={NODE: record})


def test_versions_grow_within_a_boot() -> None:
    versions = Versions(SimpleNamespace(nodes={}), NODE, 3)
    assert [versions.next() for _ in range(2)] == [3 << 32 | 1, 3 << 32 | 2]
    assert versions.boot == 3


def test_a_newer_record_is_gone_on_from_followed_or_left_behind() -> None:
    catalog = known(7 << 32 | 9)
    versions = Versions(catalog, NODE, 3)
    assert versions.overtaken_by() is catalog.nodes[NODE]
    assert versions.next() == 7 << 32 | 10
    assert versions.overtaken_by() is None
    catalog.nodes = known(8 << 32).nodes
    versions.follow(catalog.nodes[NODE])
    assert (versions.overtaken_by(), versions.boot) == (None, 8)
    catalog.nodes = known(9 << 32).nodes
    assert versions.raise_boot() == 10
    assert versions.next() == 10 << 32 | 1


@pytest.mark.parametrize(("version", "left"), [(9 << 32, True), (LAST_BOOT << 32, False)])
def test_a_record_that_ends_a_node_is_not_outdone(version: int, left: bool) -> None:
    versions = Versions(known(version, left=left), NODE, 3)
    assert versions.overtaken_by() is None
    assert versions.next() == 3 << 32 | 1


def test_a_record_of_our_own_last_version_that_says_something_else_is_foreign() -> None:
    catalog = SimpleNamespace(nodes={})
    versions = Versions(catalog, NODE, 3)
    catalog.nodes = known(versions.next()).nodes
    versions.note_made()
    assert versions.overtaken_by() is None
    catalog.nodes = {NODE: SimpleNamespace(**vars(catalog.nodes[NODE]), pods=("another's",))}
    other = catalog.nodes[NODE]
    assert versions.overtaken_by() is other
    versions.follow(other)
    assert versions.overtaken_by() is None
    assert versions.next() == 3 << 32 | 2
