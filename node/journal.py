"""The journal: a node's entries in one file, changed by transactions that are whole or not there.

    append    write one record behind the last, sync --------------------> stored
    rewrite   all entries into a new file, sync, rename, sync the folder -> stored, and small again

A crash at any point leaves the entries as they were before a transaction or after it. What a crash
tore off is cut away when the file is opened; any other damage is refused, and copied aside so that
nothing that is done about it can lose it. `node.transactions` has the format.

When the disk fails:

- A write that fails, or stops half way, is cut off again. If that fails too, the file is not
  *trusted* any more: what is at its end is not known.
- After a sync that failed, nobody knows what is on the disk: the kernel forgets such pages, and a
  second sync says that all is well. The file is not trusted any more.
- A file that is not trusted gets no further record. The next transaction writes a new file from
  the entries in memory; nothing is ever read back from a file that failed. Until that works
  nothing is stored, and whoever asked is told.
- A file that was removed or exchanged under the running daemon is not trusted either.

Compaction is a rewrite when the file has become much longer than what it says.

References:
    Rebello et al. 2020, "Can Applications Recover from fsync Failures?", and
    https://wiki.postgresql.org/wiki/Fsync_Errors: why a failed sync is not tried again.
    Pillai et al. 2014, "All File Systems Are Not Created Equal", section 4: which order of
    write, fsync, rename and fsync of the folder survives everywhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from node.errors import NodeError
from node.state import LARGEST_FILE, create_private, read_private, set_aside
from node.transactions import (
    MAX_PAYLOAD,
    RECORD_SIZE,
    SALT_SIZE,
    TRANSACTION,
    Chain,
    Contents,
    DamagedError,
    NewerError,
    apply,
    base_records,
    read_journal,
)
from overlay.effects import Report
from overlay.errors import ConfigError
from overlay.state import Change

GROWTH: Final = 4
"""A file is rewritten when it is so many times as long as its entries are ..."""

SLACK: Final = 4 << 20
"""... and so many bytes longer: a small state is not rewritten all the time."""

RESTORE: Final = "restore it from a backup, then run muslin ipam claim"

POINTS: Final = (
    "append",
    "append-written",
    "append-synced",
    "rewrite",
    "rewrite-opened",
    "rewrite-written",
    "rewrite-synced",
    "rewrite-renamed",
    "rewrite-done",
)
"""Where a crash may happen, in order. Each says what was done last."""

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""After these the file is as good as before. Any other error may be one of the device."""


class SystemCalls:
    """What the journal asks of the kernel. Tests pass one that fails, or that ends the process."""

    def reach(self, point: str) -> None:
        """One of `POINTS` was reached."""

    def write(self, handle: int, data: memoryview) -> int:
        """Write at the position of the handle; returns how many bytes."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """Return when all that was written is on the disk."""
        os.fdatasync(handle)

    def truncate(self, handle: int, length: int) -> None:
        """Cut the file off, and go on writing there."""
        os.ftruncate(handle, length)
        os.lseek(handle, length, os.SEEK_SET)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file the name of another, at once."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in the folder are on the disk."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Journal:
    """One open journal. The caller holds the lock of its folder.

    Made by `Journal.create` and `Journal.open`.

    Attributes:
        path: the file.
        entries: what is stored; not to be changed.
        length: bytes of the file.
        report: who is told what is worth a line of the log.
    """

    def __init__(self, path: Path, calls: SystemCalls, report: Callable[[Report], None]) -> None:
        self.path = path
        self.entries: dict[bytes, bytes] = {}
        self.length = 0
        self.report = report
        self._calls = calls
        self._chain = Chain(b"")
        self._handle = -1
        self._trusted = False
        self._closed = False
        self._live = 0
        self._rewrite_above = 0

    @classmethod
    def create(
        cls, path: Path, entries: Mapping[bytes, bytes], calls: SystemCalls | None = None
    ) -> Journal:
        """A new journal that holds `entries`, in place of a file that may be there.

        Raises:
            NodeError: the file system does not allow it. Nothing else.
        """
        journal = cls(path, calls or SystemCalls(), lambda _: None)
        journal._store_anew(dict(entries))
        return journal

    @classmethod
    def open(
        cls,
        path: Path,
        calls: SystemCalls | None = None,
        report: Callable[[Report], None] = lambda _: None,
    ) -> Journal:
        """Read a journal and go on writing to it; a torn end is cut off first.

        Raises:
            ConfigError: see `read_entries`.
            NodeError: it cannot be written to. Nothing else.
        """
        contents = _read(path)
        journal = cls(path, calls or SystemCalls(), report)
        with suppress(OSError):
            journal._temporary.unlink(missing_ok=True)  # what a crash left of a rewrite
        journal._take(contents)
        return journal

    def append(self, changes: Iterable[Change]) -> None:
        """Carry out a transaction: when this returns, all of it is on the disk.

        Raises:
            NodeError: it is not stored, and none of it ever counts as such here; or the journal
                is closed. Nothing else.
        """
        if self._closed:
            raise NodeError(f"{self.path} is closed", "start the daemon again", "closed")
        changes = tuple(changes)
        sound = self._trusted and self.length <= LARGEST_FILE // 2 and not self._is_exchanged()
        record, chain = self._chain.record(TRANSACTION, changes)
        # What one record cannot hold goes into the base of a new file, which has parts.
        sound = sound and len(record) <= RECORD_SIZE + MAX_PAYLOAD
        if not sound or not self._write_record(record):
            after = dict(self.entries)
            apply(after, changes)
            self._store_anew(after)
            return
        self._chain, self.length = chain, self.length + len(record)
        for key, value in changes:
            self._live += _size(key, value) - _size(key, self.entries.get(key))
            apply(self.entries, ((key, value),))
        self._compact()

    def close(self) -> None:
        """Let go of the file, for good. Safe to call twice.

        The folder may be another process's from now on: nothing is written to it any more.
        """
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._trusted = -1, False

    # -- appending -----------------------------------------------------------------------------

    def _write_record(self, record: bytes) -> bool:
        """Append and sync; False when a new file must be tried, because nobody knows what is there.

        Raises:
            NodeError: nothing was appended.
        """
        self._calls.reach("append")
        try:
            _write_all(self._calls, self._handle, record)
        except OSError as error:
            self._trusted = self._cut_off() and error.errno in _NO_ROOM
            raise NodeError.of(f"writing {self.path}", error) from error
        self._calls.reach("append-written")
        try:
            self._calls.sync(self._handle)
        except OSError as error:
            self._trusted = False
            self.report(Report("journal.distrusted", {"why": str(error)}))
            self._cut_off()  # for whoever reads it next; it may not have worked
            return False
        self._calls.reach("append-synced")
        return True

    def _cut_off(self) -> bool:
        try:
            self._calls.truncate(self._handle, self.length)
            self._calls.sync(self._handle)
        except OSError:
            return False
        return True

    def _is_exchanged(self) -> bool:
        """Whether the name leads to another file than the open one, or its length was changed."""
        ours = os.fstat(self._handle)
        try:
            named = self.path.stat()
        except OSError:
            return True
        same = (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
        return not same or ours.st_size != self.length

    # -- rewriting -----------------------------------------------------------------------------

    def _compact(self) -> None:
        if self.length <= self._rewrite_above:
            return
        try:
            self._store_anew(self.entries)
        except NodeError as error:
            # What was to be stored is. A file that is still trusted may grow on for a while.
            self._rewrite_above = self.length + SLACK
            self.report(Report("journal.not-compacted", {"why": str(error)}))

    def _store_anew(self, entries: dict[bytes, bytes]) -> None:
        """Write `entries` to a new file and put it in place of the old one.

        Raises:
            NodeError: it did not work. The old file is in place still, or the new one is and is
                not trusted.
        """
        temporary = self._temporary
        self._calls.reach("rewrite")
        try:
            handle, chain, length = self._write_file(temporary, entries)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise NodeError.of(f"writing {self.path}", error) from error
        try:
            self._calls.rename(temporary, self.path)
        except OSError as error:
            os.close(handle)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise NodeError.of(f"replacing {self.path}", error) from error
        self._calls.reach("rewrite-renamed")
        self._let_go()
        self._handle, self._chain, self.length = handle, chain, length
        try:
            self._calls.sync_folder(self.path.parent)
        except OSError as error:
            # The old file may come back with the next crash: nothing may be added to this one.
            raise NodeError.of(f"syncing {self.path.parent}", error) from error
        self._calls.reach("rewrite-done")
        self._trusted = True
        self._set_entries(entries)
        self._rewrite_above = GROWTH * self._live + SLACK

    @property
    def _temporary(self) -> Path:
        return self.path.with_name(f".{self.path.name}.new")

    def _write_file(self, path: Path, entries: Mapping[bytes, bytes]) -> tuple[int, Chain, int]:
        """Make a synced file of these entries; returns its handle, chain and length."""
        path.unlink(missing_ok=True)  # what a crash left, or somebody put there
        handle = create_private(path)
        try:
            self._calls.reach("rewrite-opened")
            chain = Chain(os.urandom(SALT_SIZE))
            header = chain.header()
            _write_all(self._calls, handle, header)
            length = len(header)
            for record, behind in base_records(entries, chain):
                length += len(record)
                if length > LARGEST_FILE:  # it would not be read back
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                _write_all(self._calls, handle, record)
                chain = behind
            self._calls.reach("rewrite-written")
            self._calls.sync(handle)
            self._calls.reach("rewrite-synced")
        except OSError:
            os.close(handle)
            raise
        return handle, chain, length

    # -- what is known of the file -------------------------------------------------------------

    def _take(self, contents: Contents) -> None:
        """Open the file that `contents` were read from, without a torn end.

        Raises:
            NodeError: it cannot be written to.
        """
        try:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            size = os.fstat(self._handle).st_size
            self._calls.truncate(self._handle, contents.length)
            self._calls.sync(self._handle)
        except OSError as error:
            self.close()
            raise NodeError.of(f"opening {self.path}", error) from error
        if contents.torn:
            why = f"the last record was not completed ({contents.torn})"
            self.report(Report("journal.cut", {"count": size - contents.length, "why": why}))
        self._chain, self.length, self._trusted = contents.chain, contents.length, True
        self._set_entries(contents.entries)
        self._rewrite_above = GROWTH * self._live + SLACK

    def _set_entries(self, entries: dict[bytes, bytes]) -> None:
        self.entries = entries
        self._live = sum(_size(key, entries[key]) for key in entries)


def read_entries(path: Path) -> dict[bytes, bytes]:
    """What a journal holds; the file is left as it is.

    Raises:
        ConfigError: missing, readable by others, newer, or damaged; names the file, what is wrong
            where, and what to do. A damaged one was copied aside. Nothing else.
    """
    return _read(path).entries


def _read(path: Path) -> Contents:
    content = read_private(path)
    try:
        return read_journal(content)
    except NewerError as error:
        raise ConfigError(f"{path} {error}: upgrade this Muslin") from error
    except DamagedError as error:
        where = f"at byte {error.offset} of {len(content)}"
        copy = set_aside(path, content)
        raise ConfigError(f"{path} is damaged {where} ({error}), {copy}: {RESTORE}") from error


def _size(key: bytes, value: bytes | None) -> int:
    return 0 if value is None else len(key) + len(value)


def _write_all(calls: SystemCalls, handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[calls.write(handle, view) :]
