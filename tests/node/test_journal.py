"""The journal on a real file system: transactions, crashes, and disks that fail."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node import journal as journal_module
from node import state as state_module
from node import transactions as transactions_module
from node.errors import NodeError
from node.journal import POINTS, SLACK, Journal, SystemCalls, read_entries
from node.transactions import apply
from overlay.effects import Report
from overlay.errors import ConfigError
from overlay.state import NodeState
from overlay.wire.items import Item
from tests.arch.project import ROOT

ENTRIES = {b"schema": b"1", b"boot": b"1"}
CHANGES = ((b"boot", b"2"), (b"pods/web", b"x" * 100))
AFTER = {b"schema": b"1", b"boot": b"2", b"pods/web": b"x" * 100}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Journal.create(tmp_path / "state", ENTRIES).close()
    return tmp_path / "state"


class Failing(SystemCalls):
    """Fails those calls that a test names, until it is mended."""

    def __init__(self, **fails: int) -> None:
        self.fails = dict(fails)
        self.short = False
        self.reached: list[str] = []

    def mend(self) -> None:
        self.fails = {}

    def _may_fail(self, call: str) -> None:
        number = self.fails.get(call, 0)
        if number:
            raise OSError(number, os.strerror(number))

    def reach(self, point: str) -> None:
        self.reached.append(point)

    def write(self, handle: int, data: memoryview) -> int:
        if self.fails.get("write") and len(data) > 1 and not self.short:
            self.short = True  # as a disk that becomes full does
            return super().write(handle, data[: len(data) // 2])
        self.short = False
        self._may_fail("write")
        return super().write(handle, data)

    def sync(self, handle: int) -> None:
        self._may_fail("sync")
        super().sync(handle)

    def truncate(self, handle: int, length: int) -> None:
        self._may_fail("truncate")
        super().truncate(handle, length)

    def rename(self, source: Path, target: Path) -> None:
        self._may_fail("rename")
        super().rename(source, target)

    def sync_folder(self, folder: Path) -> None:
        self._may_fail("sync_folder")
        super().sync_folder(folder)


# -- transactions ------------------------------------------------------------------------------


def test_transactions_are_there_after_a_restart(path) -> None:
    for number in range(5):
        journal = Journal.open(path)
        journal.append([(b"boot", b"%d" % number), (b"pods/%d" % number, b"")])
        journal.append([(b"pods/%d" % (number - 1), None)])
        assert journal.length == path.stat().st_size
        journal.close()
    assert read_entries(path) == {b"schema": b"1", b"boot": b"4", b"pods/4": b""}
    assert [file.name for file in path.parent.iterdir()] == ["state"]


def test_the_file_is_for_its_owner_alone(path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Journal.open(path)


def test_a_transaction_is_one_record_behind_the_others_and_synced(path) -> None:
    calls = Failing()
    journal = Journal.open(path, calls)
    before = path.read_bytes()
    journal.append(CHANGES)
    after = path.read_bytes()
    assert after.startswith(before)
    assert len(after) < len(before) + 250
    assert calls.reached == ["append", "append-written", "append-synced"]
    assert journal.entries == read_entries(path) == AFTER


def test_a_journal_that_is_created_takes_the_place_of_another(path) -> None:
    Journal.create(path, AFTER).close()
    assert read_entries(path) == AFTER


def test_a_closed_journal_writes_nothing_any_more(path) -> None:
    journal = Journal.open(path)
    journal.close()
    journal.close()
    with pytest.raises(NodeError, match="is closed"):
        journal.append(CHANGES)
    assert read_entries(path) == ENTRIES


# -- compaction --------------------------------------------------------------------------------


def test_a_file_that_is_much_longer_than_its_entries_is_rewritten(path) -> None:
    journal = Journal.open(path)
    largest = 0
    for number in range(150):
        journal.append([(b"items/k", bytes([number]) * 100_000)])
        largest = max(largest, path.stat().st_size)
        assert journal.length == path.stat().st_size
    assert SLACK < largest < SLACK + 6 * 100_200
    assert read_entries(path) == {**ENTRIES, b"items/k": bytes([149]) * 100_000}
    assert [file.name for file in path.parent.iterdir()] == ["state"]


def test_a_rewrite_that_fails_costs_nothing_that_is_stored(path, monkeypatch) -> None:
    monkeypatch.setattr(journal_module, "SLACK", 1000)
    calls, told = Failing(rename=errno.ENOSPC), []
    journal = Journal.open(path, calls, told.append)
    for number in range(60):
        journal.append([(b"items/k", b"%d" % number * 50)])
    assert {report.event for report in told} == {"journal.not-compacted"}
    assert 3 < len(told) < 10  # not at each of them
    assert read_entries(path)[b"items/k"] == b"59" * 50
    assert [file.name for file in path.parent.iterdir()] == ["state"]
    calls.mend()
    for _ in range(20):
        journal.append(CHANGES)
    assert journal.length < 3000
    assert read_entries(path)[b"boot"] == b"2"


def test_a_large_state_is_read_back(tmp_path) -> None:
    keys = [b"n" + number.to_bytes(32, "big") for number in range(20_000)]
    state = NodeState(boot=1, items=tuple(Item(key, 1, key * 18) for key in keys))
    path = tmp_path / "state"
    Journal.create(path, state.entries()).close()
    assert NodeState.from_entries(read_entries(path)) == state


# -- what is damaged ---------------------------------------------------------------------------


def test_a_transaction_that_no_record_can_hold_is_read_back_all_the_same(path, monkeypatch) -> None:
    for module in (journal_module, transactions_module):
        monkeypatch.setattr(module, "MAX_PAYLOAD", 4_000)
    monkeypatch.setattr(transactions_module, "BASE_PART", 2_000)
    many = {b"items/%d" % number: b"x" * 1_000 for number in range(8)}
    journal = Journal.open(path)
    journal.append(many.items())
    journal.append(CHANGES)
    journal.close()
    assert read_entries(path) == many | AFTER


def test_a_state_that_could_not_be_read_back_is_not_stored(path, monkeypatch) -> None:
    for module in (journal_module, state_module):
        monkeypatch.setattr(module, "LARGEST_FILE", 4_000)
    journal = Journal.open(path)
    for number in range(3):
        journal.append([(b"items/%d" % number, b"x" * 1_000)])
    with pytest.raises(NodeError, match="too large"):
        journal.append([(b"items/3", b"x" * 1_000)])
    journal.append(CHANGES)
    journal.close()
    assert read_entries(path).keys() == {*AFTER, b"items/0", b"items/1", b"items/2"}


@pytest.fixture
def damaged(path) -> Path:
    journal = Journal.open(path)
    for number in range(5):
        journal.append([(b"boot", b"%d" % number)])
    journal.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def test_a_torn_end_is_cut_off_and_told_once(path) -> None:
    whole = path.read_bytes()
    journal = Journal.open(path)
    journal.append(CHANGES)
    journal.close()
    torn = path.read_bytes()[:-7]
    path.write_bytes(torn)
    assert read_entries(path) == ENTRIES
    assert path.read_bytes() == torn  # who only reads leaves it as it is
    told: list[Report] = []
    journal = Journal.open(path, report=told.append)
    why = "the last record was not completed (it is cut short)"
    assert told == [Report("journal.cut", {"count": len(torn) - len(whole), "why": why})]
    assert path.read_bytes() == whole
    journal.append(CHANGES)
    journal.close()
    assert Journal.open(path, report=told.append).entries == AFTER
    assert len(told) == 1


def test_damage_is_refused_with_what_where_and_a_copy(damaged) -> None:
    content, copy = damaged.read_bytes(), damaged.with_name("state.damaged-1")
    for attempt in (Journal.open, read_entries):
        with pytest.raises(ConfigError) as caught:
            attempt(damaged)
        says = str(caught.value)
        assert says.startswith(f"{damaged} is damaged at byte ")
        assert f" of {len(content)} (record " in says
        assert says.endswith(f", a copy is {copy}: {journal_module.RESTORE}")
    assert damaged.read_bytes() == copy.read_bytes() == content
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    # A second look, as of a service that is started again and again, does not copy it again.
    assert len(list(damaged.parent.iterdir())) == 2


def test_no_earlier_copy_is_overwritten(damaged) -> None:
    earlier = damaged.with_name("state.damaged-1")
    earlier.write_bytes(b"what another damage left")
    with pytest.raises(ConfigError, match=r"a copy is .*state\.damaged-2: restore"):
        read_entries(damaged)
    assert earlier.read_bytes() == b"what another damage left"
    assert damaged.with_name("state.damaged-2").read_bytes() == damaged.read_bytes()


def test_a_copy_that_cannot_be_made_is_said(damaged) -> None:
    damaged.with_name("state.damaged-1").mkdir()
    with pytest.raises(ConfigError, match="it could not be copied"):
        read_entries(damaged)


def test_a_newer_format_is_refused_and_left_alone(path) -> None:
    content = path.read_bytes().replace(b"state 1", b"state 2", 1)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="was written by a newer Muslin: upgrade this Muslin"):
        Journal.open(path)
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [
        ("state", content)
    ]


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="state is missing: restore it from a backup"):
        Journal.open(tmp_path / "state")


# -- disks that fail ---------------------------------------------------------------------------


def test_half_a_record_on_a_full_disk_is_cut_off_again(path) -> None:
    calls = Failing(write=errno.ENOSPC)
    journal = Journal.open(path, calls)
    before, inode = path.read_bytes(), path.stat().st_ino
    with pytest.raises(NodeError, match="no space left on device") as caught:
        journal.append(CHANGES)
    assert caught.value.fix == "free some disk space"
    assert path.read_bytes() == before
    assert journal.entries == ENTRIES
    calls.mend()
    journal.append(CHANGES)
    assert read_entries(path) == AFTER
    assert path.stat().st_ino == inode  # the file was as good as before


@pytest.mark.parametrize(
    "fails",
    [
        {"write": errno.EIO},
        {"write": errno.ENOSPC, "truncate": errno.EIO},
        {"sync": errno.EIO, "rename": errno.EROFS},
        {"sync": errno.ENOSPC},
        {"sync": errno.EIO, "sync_folder": errno.EIO},
    ],
    ids=lambda fails: "+".join(fails),
)
def test_nothing_is_added_to_a_file_that_is_not_trusted_any_more(path, fails) -> None:
    calls = Failing(**fails)
    journal = Journal.open(path)
    journal._calls = calls
    inode = path.stat().st_ino
    for _ in range(3):
        with pytest.raises(NodeError):
            journal.append(CHANGES)
        assert journal.entries == ENTRIES
        assert read_entries(path) in (ENTRIES, AFTER)
    assert calls.reached.count("append") == 1
    calls.mend()
    journal.append([(b"boot", b"3")])
    assert path.stat().st_ino != inode
    assert read_entries(path) == journal.entries == {b"schema": b"1", b"boot": b"3"}
    journal.append(CHANGES)
    assert calls.reached[-3:] == ["append", "append-written", "append-synced"]


def test_after_a_sync_that_failed_once_a_new_file_is_what_counts(path) -> None:
    """The kernel says a failure of a sync once; what it then forgot, no second sync writes."""

    class Once(SystemCalls):
        def __init__(self) -> None:
            self.synced: list[int] = []

        def sync(self, handle: int) -> None:
            self.synced.append(os.fstat(handle).st_ino)
            if len(self.synced) == 1:
                raise OSError(errno.EIO, "Input/output error")
            super().sync(handle)

    told: list[Report] = []
    journal = Journal.open(path, report=told.append)
    journal._calls = calls = Once()
    old = path.stat().st_ino
    journal.append(CHANGES)
    assert [report.event for report in told] == ["journal.distrusted"]
    assert (calls.synced[0], calls.synced[-1]) == (old, path.stat().st_ino)
    assert path.stat().st_ino != old
    assert read_entries(path) == AFTER


def test_a_new_file_whose_name_is_not_on_the_disk_yet_does_not_count(path) -> None:
    calls = Failing(sync_folder=errno.EIO)
    with pytest.raises(NodeError, match="syncing"):
        Journal.create(path, AFTER, calls)
    journal = Journal.open(path)
    journal._calls = calls
    path.unlink()  # so that the next transaction is a rewrite
    with pytest.raises(NodeError, match="syncing"):
        journal.append(CHANGES)
    assert "rewrite-renamed" in calls.reached
    assert "rewrite-done" not in calls.reached


@pytest.mark.parametrize("by", ["removal", "exchange", "truncation", "appending"])
def test_a_file_that_was_meddled_with_is_written_anew(path, by) -> None:
    journal = Journal.open(path)
    if by == "removal":
        path.unlink()
    elif by == "exchange":
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    elif by == "truncation":
        os.truncate(path, 10)
    else:
        with path.open("ab") as stream:
            stream.write(b"more")
    journal.append(CHANGES)
    assert read_entries(path) == AFTER


ANY_CHANGES = st.lists(
    st.tuples(st.sampled_from([b"boot", b"a", b"b"]), st.none() | st.binary(max_size=200)),
    max_size=3,
)
FAILURES = st.dictionaries(
    st.sampled_from(["write", "sync", "truncate", "rename", "sync_folder"]),
    st.sampled_from([errno.ENOSPC, errno.EIO]),
    max_size=3,
)


@given(st.lists(st.tuples(ANY_CHANGES, FAILURES, st.booleans()), max_size=12))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_fails_the_disk_has_what_was_stored_or_also_what_was_tried(
    tmp_path, monkeypatch, steps
) -> None:
    monkeypatch.setattr(journal_module, "SLACK", 500)
    path = tmp_path / "state"
    Journal.create(path, ENTRIES).close()
    calls = Failing()
    journal, stored = Journal.open(path, calls), dict(ENTRIES)
    tried: list[dict[bytes, bytes]] = []  # since something was stored
    for changes, fails, restart in steps:
        after = dict(stored)
        apply(after, changes)
        calls.fails = fails
        try:
            journal.append(changes)
        except NodeError:
            tried.append(after)
            assert read_entries(path) in (stored, *tried)
        else:
            stored, tried = after, []
            assert read_entries(path) == stored
        assert journal.entries == stored
        if restart:
            calls.mend()
            journal.close()
            journal = Journal.open(path, calls)
            stored, tried = dict(journal.entries), []
    journal.close()


# -- crashes -----------------------------------------------------------------------------------


def crashes(path: Path, calls: SystemCalls, changes) -> None:
    """Carry out a transaction in a process that ends on the way."""
    child = os.fork()
    if not child:
        try:
            journal = Journal.open(path)
            journal._calls = calls
            journal.append(changes)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status


class Deadly(SystemCalls):
    def __init__(self, point: str) -> None:
        self.point = point

    def reach(self, point: str) -> None:
        if point == self.point:
            os.kill(os.getpid(), 9)


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_point_leaves_the_state_before_or_after(path, monkeypatch, point) -> None:
    monkeypatch.setattr(journal_module, "SLACK", -1_000_000)  # each transaction ends in a rewrite
    crashes(path, Deadly(point), CHANGES)
    written = POINTS.index(point) >= POINTS.index("append-written")
    assert read_entries(path) == (AFTER if written else ENTRIES)
    journal = Journal.open(path)
    assert [file.name for file in path.parent.iterdir()] == ["state"]
    journal.append([(b"boot", b"9")])
    assert read_entries(path)[b"boot"] == b"9"


def test_a_node_that_is_killed_has_on_its_disk_all_that_it_announced() -> None:
    """The short form of `scripts/torture`: its engine and driver, killed at random moments."""
    words = [sys.executable, "scripts/torture.py", "--kills", "40", "--each", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("40 kills at random and 11 at failpoints")
    seen = {what: int(number) for number, what in re.findall(r"(\d+) (\w+)[,\n]", done.stdout)}
    assert seen["announced"] > 100, "a node that says nothing keeps every promise"
    assert seen["before"], "none was killed in the middle of something"
    assert seen["after"], "none was killed between storing and saying so"
    assert seen["rewritten"] > 1


@pytest.fixture(autouse=True)
def _no_journal_stays_open() -> Iterator[None]:
    """Tests that fail half way leave handles; they are not to be found by the next one."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    for name in set(os.listdir("/proc/self/fd")) - before:
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if "/state" in target:
            os.close(int(name))
