"""The journal on a real file system: transactions, crashes, and disks that fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.journal import Journal, read_entries

ENTRIES = {b"schema": b"1", b"boot": b"1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Journal.create(tmp_path / "state", ENTRIES).close()
    return tmp_path / "state"


def test_transactions_are_there_after_a_restart(path) -> None:
    for number in range(5):
        journal = Journal.open(path)
        journal.append([(b"boot", b"%d" % number), (b"pods/%d" % number, b"")])
        journal.append([(b"pods/%d" % (number - 1), None)])
        assert journal.length == path.stat().st_size
        journal.close()
    assert read_entries(path) == {b"schema": b"1", b"boot": b"4", b"pods/4": b""}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["state"]
