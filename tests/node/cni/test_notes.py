"""Notes: whole or not there, in order, and foreign files are left out."""

from __future__ import annotations

import os
import posix
import stat

import pytest

from node.cni import notes

WEB = {"container": "c0ffee01", "interface": "eth0", "network": "pods"}


def test_notes_are_found_in_order_and_taken_away(tmp_path) -> None:
    state = str(tmp_path)
    assert notes.found(state) == []
    first = notes.leave(state, "c0ffee01", "eth0", "pods")
    second = notes.leave(state, "c0ffee02", "net1", "pods")
    found = notes.found(state)
    assert [path for path, _ in found] == [first, second]
    assert found[0][1] == WEB
    notes.take_away(first)
    notes.take_away(first)
    assert [note["container"] for _, note in notes.found(state)] == ["c0ffee02"]


def test_notes_are_of_their_owner_alone(tmp_path) -> None:
    path = notes.leave(str(tmp_path), *WEB.values())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / notes.FOLDER).stat().st_mode) == 0o700


def test_age_counts_and_not_the_alphabet(tmp_path, monkeypatch) -> None:
    for nanoseconds in (1000, 999):
        monkeypatch.setattr("time.time_ns", lambda now=nanoseconds: now)
        notes.leave(str(tmp_path), str(nanoseconds), "eth0", "pods")
    assert [note["container"] for _, note in notes.found(str(tmp_path))] == ["999", "1000"]


def test_without_a_node_there_is_nothing_to_note(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        notes.leave(str(tmp_path / "nowhere"), *WEB.values())


def test_what_is_no_note_is_left_out(tmp_path) -> None:
    folder = tmp_path / notes.FOLDER
    folder.mkdir()
    (folder / ".5-1").write_text('{"container": "a", "interface": "b", "network": "c"}')
    (folder / "6-1").write_text("half a no")
    (folder / "7-1").write_text('{"container": "a", "interface": 7, "network": "c"}')
    (folder / "8-1").write_bytes(b"\xff")
    (folder / "9-1").mkdir()
    (folder / "10-1").symlink_to(folder / ".5-1")
    assert notes.found(str(tmp_path)) == []


def test_a_note_that_cannot_be_whole_is_not_there(tmp_path, monkeypatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("posix.fsync", full)
    with pytest.raises(OSError, match="space"):
        notes.leave(str(tmp_path), *WEB.values())
    assert list((tmp_path / notes.FOLDER).iterdir()) == []


def test_a_disk_that_takes_a_part_at_a_time_gets_all(tmp_path, monkeypatch) -> None:
    write = posix.write
    monkeypatch.setattr("posix.write", lambda handle, data: write(handle, data[:7]))
    path = notes.leave(str(tmp_path), *WEB.values())
    assert notes.found(str(tmp_path)) == [(path, WEB)]
