"""The journal on disks that really fail: a full file system, a limit, a device that writes not."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from node.errors import NodeError
from node.journal import Journal, read_entries
from overlay.effects import Report
from overlay.errors import ConfigError
from tests.support.mounts import Mounts, command, fill

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ENTRIES = {b"schema": b"1", b"boot": b"1"}


def journal_at(path: Path, told: list[Report] | None = None) -> closing[Journal]:
    """A new journal, open for the time of a `with` block."""
    Journal.create(path, ENTRIES).close()
    report = (lambda _: None) if told is None else told.append
    return closing(Journal.open(path, report=report))


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with Mounts() as made:
        yield made


def grow_until_refused(journal: Journal, size: int = 3000) -> str:
    """Store ever more until it does not work any more; why not."""
    for number in range(10_000):
        before = dict(journal.entries)
        try:
            journal.append([(b"items/%d" % number, os.urandom(size)), (b"boot", b"%d" % number)])
        except NodeError as error:
            assert read_entries(journal.path) == journal.entries == before
            return str(error)
    raise AssertionError("the disk is never full")


@NEEDS_ROOT
def test_a_full_file_system_keeps_the_state_and_takes_more_when_there_is_room(
    mounts: Mounts, tmp_path: Path
) -> None:
    def work() -> None:
        command("mount", "-t", "tmpfs", "-o", "size=256k", "none", tmp_path)
        path = tmp_path / "state"
        with journal_at(path) as journal:
            journal.append([(b"items/large", bytes(8000))])
            filler = fill(tmp_path)
            assert grow_until_refused(journal) == f"writing {path}: no space left on device"
            assert grow_until_refused(journal).endswith("no space left on device")
            stored = dict(journal.entries)
            filler.unlink()
            journal.append([(b"boot", b"2")])
        assert read_entries(path) == stored | {b"boot": b"2"}

    mounts.run(work)


@NEEDS_ROOT
def test_a_damaged_state_on_a_full_file_system_is_refused_and_not_half_copied(
    mounts: Mounts, tmp_path: Path
) -> None:
    def work() -> None:
        command("mount", "-t", "tmpfs", "-o", "size=256k", "none", tmp_path)
        path = tmp_path / "state"
        Journal.create(path, {**ENTRIES, b"items/large": bytes(20_000)}).close()
        content = bytearray(path.read_bytes())
        content[10_000] ^= 1
        path.write_bytes(content)
        fill(tmp_path)
        with pytest.raises(ConfigError, match="could not be copied"):
            Journal.open(path)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["filler", "state"]

    mounts.run(work)


@NEEDS_ROOT
def test_a_read_only_file_system_is_named_when_the_journal_is_opened(
    mounts: Mounts, tmp_path: Path
) -> None:
    def work() -> None:
        path = tmp_path / "state"
        Journal.create(path, ENTRIES).close()
        command("mount", "--bind", tmp_path, tmp_path)
        command("mount", "-o", "remount,bind,ro", tmp_path)
        with pytest.raises(NodeError, match="read-only file system") as caught:
            Journal.open(path)
        assert caught.value.fix == "remount it writable"
        assert read_entries(path) == ENTRIES

    mounts.run(work)


@NEEDS_ROOT
def test_a_device_that_cannot_write_what_it_took_is_not_believed_and_a_new_file_is(
    mounts: Mounts, tmp_path: Path
) -> None:
    """A disk whose medium has no room: writes go to the page cache, and the sync fails.

    The image of a file system, larger than the tmpfs it lies on. That is how a thinly provisioned
    volume fails, and it is the failure after which a second sync says that all is well.
    """

    def work() -> None:
        medium, disk = tmp_path / "medium", tmp_path / "disk"
        medium.mkdir()
        disk.mkdir()
        command("mount", "-t", "tmpfs", "-o", "size=1m", "none", medium)
        image = medium / "image"
        image.touch()
        os.truncate(image, 8 << 20)
        command("mkfs.ext2", "-q", "-m0", "-O", "^resize_inode", image)
        try:
            command("mount", "-o", "loop", image, disk)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs loop devices: {error.stderr.decode()}")
        try:
            fails(medium, disk)
        finally:
            command("umount", disk)

    def fails(medium: Path, disk: Path) -> None:
        told: list[Report] = []
        path = disk / "state"
        with journal_at(path, told) as journal:
            filler = fill(medium)
            why = grow_until_refused(journal)
            # The write succeeded: it is the sync that did not, and then that of the new file.
            assert [report.event for report in told] == ["journal.distrusted"]
            assert why.startswith(f"writing {path}: ")
            stored, old = dict(journal.entries), path.stat().st_ino
            for _ in range(3):
                with pytest.raises(NodeError):
                    journal.append([(b"boot", b"0"), (b"items/more", os.urandom(200_000))])
            filler.unlink()
            journal.append([(b"boot", b"2")])
            assert path.stat().st_ino != old
        assert read_entries(path) == stored | {b"boot": b"2"}

    mounts.run(work)


def test_a_file_that_may_not_grow_is_cut_off_where_it_was(tmp_path: Path) -> None:
    """The kernel writes what fits under the limit, so that half a record is there, and refuses."""
    path = tmp_path / "state"
    with journal_at(path) as journal:
        limited(journal)
    assert read_entries(path) == ENTRIES | {b"boot": b"3"}


def limited(journal: Journal) -> None:
    path = journal.path
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))
    try:
        with pytest.raises(NodeError, match="file too large"):
            journal.append([(b"boot", b"2")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    journal.append([(b"boot", b"3")])
