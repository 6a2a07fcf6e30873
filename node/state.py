r"""The state folder: everything a node keeps, each file whole or not there at all.

    DIR/                 0700
      lock               held (flock) by the one process that uses the folder; its text is the pid
      config.toml        settings, written by people (see `node.config`)
      identity.key       the node's two private keys          (see `node.identity`)
      cluster            the cluster, its shared secret, this node's certificate
      authority.key      only where the cluster was founded
      request.key        only while a certificate is awaited  (see `node.requesting`)
      state              what the engine remembers across restarts: a journal (see `node.journal`)
      state.damaged-N    copies of damaged ones, kept for whoever has to mend it
      control.sock       the control socket while the daemon runs (see `node.control`)
      handover.sock      where the next daemon asks to take over   (see `node.handover`)
      handed-over        number of the last engine that was used (see `node.handover.store`)
      offloads           what the self-test found since the boot   (see `node.selftest.memory`)

Every other file that Muslin writes for itself has one format, a line of text and then the payload:

    muslin <kind> <format version> <sha256 of the payload, hex>\n<payload>

so that a truncated, damaged, foreign or newer file is named as such instead of being half
understood. A write goes to a temporary file in the same folder, is synced, renamed over the old
one, and the folder is synced: after a crash at any point either the old or the new content is
there. All of them are 0600 from the moment they exist: each holds a secret or says who the node
talks to. A folder that others may enter is refused (`check_private`).

References:
    rename(2): atomic replacement within one file system. fsync(2), notes: syncing a file does not
    sync the folder entry that names it. flock(2): the lock goes with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.errors import NodeError
from overlay.errors import ConfigError

MAGIC: Final = b"muslin"

LONGEST_HEADER: Final = 160
"""Magic, kind, version and 64 hex digits take about 90 bytes; no newline by then is no header."""

LARGEST_FILE: Final = 256 << 20
"""Far above what a full store of items takes; guards against reading a mislaid disk image."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of the folder: its name, what its header calls it, and the newest format known."""

    name: str
    kind: str
    version: int = 1


IDENTITY: Final = StoredFile("identity.key", "identity")
CLUSTER: Final = StoredFile("cluster", "cluster")
AUTHORITY: Final = StoredFile("authority.key", "authority")
STATE: Final = StoredFile("state", "state")
REQUEST: Final = StoredFile("request.key", "request")
FILES: Final = (REQUEST, AUTHORITY, IDENTITY, CLUSTER, STATE)

LOCK: Final = "lock"
SOCKET: Final = "control.sock"
CONFIG: Final = "config.toml"


def seal(file: StoredFile, payload: bytes) -> bytes:
    """The bytes of a stored file.

    >>> seal(StoredFile("x", "sample"), b"payload").split(b" ")[:3]
    [b'muslin', b'sample', b'1']
    """
    digest = hashlib.sha256(payload).hexdigest()
    return b"%s %s %d %s\n" % (MAGIC, file.kind.encode(), file.version, digest.encode()) + payload


def unseal(file: StoredFile, content: bytes) -> bytes:
    """The payload of a stored file.

    Raises:
        ConfigError: not this kind of file, a newer format, or damaged. Nothing else. The message
            is one clause without the file's name.
    """
    end = content.find(b"\n", 0, LONGEST_HEADER)
    words = content[: max(end, 0)].split(b" ")
    if len(words) != 4 or words[0] != MAGIC:
        raise ConfigError("is damaged or not a file of Muslin (no header)")
    if words[1] != file.kind.encode():
        raise ConfigError(f"holds {words[1].decode(errors='replace')!r}, not {file.kind!r}")
    if not words[2].isdigit() or int(words[2]) < 1:
        raise ConfigError("is damaged (no format version)")
    if int(words[2]) > file.version:
        raise ConfigError("was written by a newer Muslin")
    payload = content[end + 1 :]
    if hashlib.sha256(payload).hexdigest().encode() != words[3]:
        raise ConfigError("is damaged (checksum mismatch)")
    return payload


class StateFolder:
    """One node's folder on disk. Cheap to make: nothing is touched before a method is called.

    Args:
        path: the folder; need not exist yet.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def socket(self) -> Path:
        """Where the control socket of the running daemon is."""
        return self.path / SOCKET

    @property
    def config(self) -> Path:
        """Where the operator's settings are."""
        return self.path / CONFIG

    def used_by(self) -> str | None:
        """The first file of a node found here; None when the folder is free to use.

        Raises:
            NodeError: the folder may not be looked into. Nothing else.
        """
        try:
            names = set(os.listdir(self.path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NodeError.of(f"looking into {self.path}", error) from error
        return next((file.name for file in FILES if file.name in names), None)

    def create(self) -> None:
        """Make the folder (0700) with its parents; an existing one keeps its content.

        Raises:
            NodeError: the file system does not allow it. Nothing else.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except FileExistsError as error:
            why = f"{self.path} is not a folder"
            raise NodeError(why, "choose another with --state") from error
        except OSError as error:
            raise NodeError.of(f"creating {self.path}", error) from error

    def check_private(self) -> None:
        """Whether nobody but the owner may look into the folder.

        A group may pass through it (0710), to the control socket (`node.control.peers`).

        Raises:
            ConfigError: others may; says what to run.
            NodeError: the folder may not be looked at. Nothing else.
        """
        try:
            mode = self.path.stat().st_mode
        except OSError as error:
            raise NodeError.of(f"looking at {self.path}", error) from error
        if mode & 0o067:
            raise ConfigError(
                f"{self.path} holds secrets and other users may enter it: run chmod 700 {self.path}"
            )

    def discard(self) -> None:
        """Remove the folder if nothing but the lock, which the caller holds, is in it."""
        with suppress(OSError):
            if os.listdir(self.path) == [LOCK]:
                (self.path / LOCK).unlink()
                self.path.rmdir()

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the folder for this process alone; the lock's descriptor has it.

        The lock goes with the last copy of that, so it can be passed on to another process.

        Raises:
            NodeError: another process holds it (code `folder-locked`, names the pid), or the
                file system does not allow it.
        """
        path = self.path / LOCK
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NodeError.of(f"opening {path}", error) from error
        try:
            self._take_lock(handle)
            yield handle
        finally:
            os.close(handle)

    def _take_lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise NodeError(
                f"{self.path} is in use by process {holder}",
                "stop that process, or choose another folder with --state",
                code="folder-locked",
            ) from error
        sign_lock(handle)

    def write(self, file: StoredFile, payload: bytes) -> None:
        """Replace `file`, durably, or leave the old one as it was.

        Raises:
            NodeError: disk full, read-only, not permitted. Nothing else.
        """
        self.write_raw(file.name, seal(file, payload))

    def write_raw(self, name: str, content: bytes) -> None:
        """Replace the file `name` with exactly `content`, as `write` does."""
        path = self.path / name
        temporary = self.path / f".{name}.{os.getpid()}.new"
        try:
            temporary.unlink(missing_ok=True)  # what a crash left, or somebody put there
            _write_synced(temporary, content)
            temporary.replace(path)
            _sync_folder(self.path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise NodeError.of(f"writing {path}", error) from error

    def read(self, file: StoredFile) -> bytes:
        """The payload of `file`.

        Raises:
            ConfigError: missing, readable by others, damaged, newer or of another kind; names
                the file and what to do. Nothing else.
        """
        path = self.path / file.name
        content = read_private(path)
        try:
            return unseal(file, content)
        except ConfigError as error:
            newer = "newer" in str(error)
            fix = "upgrade this Muslin" if newer else "restore it from a backup"
            raise ConfigError(f"{path} {error}: {fix}") from error

    def remove(self, file: StoredFile) -> None:
        """Remove a file, durably. One that is not there is fine.

        Raises:
            NodeError: the file system does not allow it. Nothing else.
        """
        path = self.path / file.name
        try:
            path.unlink(missing_ok=True)
            _sync_folder(self.path)
        except OSError as error:
            raise NodeError.of(f"removing {path}", error) from error

    def has(self, file: StoredFile) -> bool:
        """Whether the file exists, damaged or not."""
        return (self.path / file.name).is_file()


def sign_lock(handle: int) -> None:
    """Say in the lock that this process has it; for people, and for the error of the next one.

    Where the disk does not take it, it is held all the same.
    """
    with suppress(OSError):
        os.ftruncate(handle, os.pwrite(handle, b"%d\n" % os.getpid(), 0))


def set_aside(path: Path, content: bytes) -> str:
    """Keep a copy of a damaged file under a name of its own; says where, in one clause.

    A service manager may start the daemon again and again: what was copied already is not again.
    """
    number = 0
    while True:
        number += 1
        copy = path.with_name(f"{path.name}.damaged-{number}")
        try:
            if not copy.exists():
                _copy_synced(copy, content)
            elif copy.read_bytes() != content:
                continue
        except OSError as error:
            return f"it could not be copied ({error.strerror})"
        return f"a copy is {copy}"


def _copy_synced(path: Path, content: bytes) -> None:
    try:
        _write_synced(path, content)
        _sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def _write_synced(path: Path, content: bytes) -> None:
    handle = create_private(path)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def create_private(path: Path) -> int:
    """A descriptor of a new file that only its owner may use, to write and to read.

    New, because whoever opened an old one earlier could read what is written to it.

    Raises:
        OSError: there is one (FileExistsError), or the file system does not allow it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_private(path: Path) -> bytes:
    """A file that only its owner may read.

    Raises:
        ConfigError: missing, readable by others, too large, or not a regular file; names the file
            and what to do. Nothing else.
    """
    try:
        return _read_private(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing: restore it from a backup") from error
    except OSError as error:
        raise ConfigError(str(NodeError.of(f"reading {path}", error))) from error


def _read_private(path: Path) -> bytes:
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is not a regular file: restore it from a backup")
        if status.st_mode & 0o077:
            raise ConfigError(
                f"{path} holds secrets and other users may read it: run chmod 600 {path}"
            )
        if status.st_size > LARGEST_FILE:
            raise ConfigError(f"{path} is too large to be a state file: restore it from a backup")
        return stream.read()
