"""Notes of what was deleted while no daemon ran, for the next one to free.

    DIR/detached/<nanoseconds>-<pid>    {"container": "...", "interface": "...", "network": "..."}

A runtime that deletes a container must not have to wait for the daemon, and an address must not
stay taken because of that. The namespace alone does not tell: it may live on without the container,
or vanish long after.

Nothing is lost in between: the plugin writes its note first and then knocks again; a daemon that is
there by then does the deletion itself, and one that comes later reads the notes, before it adds a
pod. A note is a file of its own, named by time, whole or not there at all (written under a hidden
name, synced, renamed, the folder synced), and removed once the daemon has stored what it says.
"""

from __future__ import annotations

import posix
import time

from node.cni.text import decode, encode

FOLDER = "detached"
PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
LONGEST_NOTE = 64 << 10

KEYS = ("container", "interface", "network")

_NEW_FILE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC


def leave(state: str, container: str, interface: str, network: str) -> str:
    """Write a note; returns its path.

    Raises:
        OSError: it cannot be written: no such state folder, read-only, full. Nothing else.
    """
    folder = f"{state}/{FOLDER}"
    try:
        posix.mkdir(folder, PRIVATE_FOLDER)
    except FileExistsError:
        pass
    else:
        _sync(state)
    name = f"{time.time_ns()}-{posix.getpid()}"
    path, hidden = f"{folder}/{name}", f"{folder}/.{name}"
    text = encode(dict(zip(KEYS, (container, interface, network), strict=True)))
    handle = posix.open(hidden, _NEW_FILE, PRIVATE_FILE)
    try:
        try:
            write(handle, text)
            posix.fsync(handle)
        finally:
            posix.close(handle)
        posix.rename(hidden, path)
    except OSError:
        posix.unlink(hidden)  # runtimes try again and again, and nobody else would remove it
        raise
    _sync(folder)
    return path


def found(state: str) -> list[tuple[str, dict[str, str]]]:
    """All notes, oldest first, with their paths; what is no note of ours is left out.

    Raises:
        OSError: the folder is there and cannot be read. Nothing else.
    """
    folder = f"{state}/{FOLDER}"
    try:
        names = posix.listdir(folder)
    except FileNotFoundError:
        return []
    notes = [(f"{folder}/{name}", _read(f"{folder}/{name}")) for name in sorted(names, key=_age)]
    return [(path, note) for path, note in notes if note is not None]


def is_there(path: str) -> bool:
    """Whether the note has not been taken away."""
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def write(handle: int, text: str) -> None:
    """Write all of a text: a nearly full disk, or a pipe, takes a part of it.

    Raises:
        OSError: the rest cannot be written. Nothing else.
    """
    left = text.encode()
    while left:
        left = left[posix.write(handle, left) :]


def take_away(path: str) -> None:
    """Remove a note. None there is fine.

    Raises:
        OSError: it cannot be removed. Nothing else.
    """
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return


def _age(name: str) -> tuple[int, str]:
    number = name.partition("-")[0]
    return (int(number) if number.isdecimal() else 0, name)


def _read(path: str) -> dict[str, str] | None:
    if path.rpartition("/")[2].startswith("."):
        return None
    try:
        handle = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    except OSError:
        return None  # the plugin took it back, or it is no file
    try:
        note = decode(posix.read(handle, LONGEST_NOTE).decode())
    except (OSError, ValueError):
        return None
    finally:
        posix.close(handle)
    if not isinstance(note, dict) or not all(isinstance(note.get(key), str) for key in KEYS):
        return None
    return {key: note[key] for key in KEYS}


def _sync(folder: str) -> None:
    handle = posix.open(folder, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        posix.fsync(handle)
    finally:
        posix.close(handle)
