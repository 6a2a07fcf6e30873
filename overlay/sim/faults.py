"""What is broken on purpose: paths that are cut, machines that stop, disks that do not write.

                  pause              crash, power_loss
        PAUSED <---------- RUNNING ---------------------> OFF
          |                 ^   ^                          |
          +--- resume ------+   +------- start ------------+

A paused machine (SIGSTOP, a suspended VM) misses nothing but time: datagrams wait in its socket
buffer, deadlines come late. A crash ends the process: all but what it wrote is lost. When the
power fails, so is what was written and not synced. A starved machine (`Starvation`) is paused
again and again for most of the time. While a slow disk writes, what must be stored first waits, as
in the daemon; all else goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, product
from typing import Final

from overlay.errors import ConfigError

SHARED: Final = 1 << 16
"""Keys and values that disks have in common: what gossip brings is on all of them."""

CACHE: Final = 64
"""Transactions that are not synced and that a loss of power takes. Older ones the kernel has
written by itself by then."""


class Power(StrEnum):
    """What a machine is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Starvation:
    """A machine gets the processor for `share` seconds of every `period` seconds only."""

    share: float = 0.05
    period: float = 2.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: not 0 < share < period. Nothing else.
        """
        if not 0.0 < self.share < self.period:
            raise ConfigError("a starved machine runs for a part of each period", "share")


class Cuts:
    """Which pairs of machines cannot reach each other. Directed: one way may work alone.

    >>> cuts = Cuts()
    >>> cuts.cut("a", "b")
    >>> cuts.severed("b", "a"), cuts.severed("a", "c")
    (True, False)
    """

    __slots__ = ("_pairs",)

    def __init__(self) -> None:
        self._pairs: set[tuple[str, str]] = set()

    def severed(self, source: str, destination: str) -> bool:
        """Whether a datagram from `source` to `destination` is lost."""
        return (source, destination) in self._pairs

    def cut(self, source: str, destination: str, *, one_way: bool = False) -> None:
        """Sever a pair; with `one_way`, answers still pass."""
        self._pairs.add((source, destination))
        if not one_way:
            self._pairs.add((destination, source))

    def heal(self, source: str, destination: str) -> None:
        """Mend a pair, both ways. Nothing happens if it is whole."""
        self._pairs -= {(source, destination), (destination, source)}

    def heal_all(self) -> None:
        """Mend everything."""
        self._pairs.clear()

    def partition(self, groups: Iterable[Iterable[str]], *, one_way: bool = False) -> None:
        """Sever each group from the others; within a group nothing changes.

        With `one_way`, datagrams from later groups to earlier ones still pass.
        """
        for left, right in combinations([list(group) for group in groups], 2):
            for source, destination in product(left, right):
                self.cut(source, destination, one_way=one_way)


_shared: dict[bytes, bytes] = {}


def _share(value: bytes) -> bytes:
    """An equal value, the same one as on other disks, so that a thousand of them fit in memory."""
    found = _shared.get(value)
    if found is None:
        if len(_shared) >= SHARED:
            del _shared[next(iter(_shared))]
        found = _shared[value] = value
    return found


class Disk:
    """What survives a crash: entries, changed by transactions.

    >>> disk = Disk({b"boot": b"1"})
    >>> disk.fsync = False
    >>> disk.write([(b"boot", b"2"), (b"left", b"yes")])
    >>> disk.power_loss()
    1
    >>> disk.entries
    {b'boot': b'1'}

    Args:
        entries: what is on it.

    Attributes:
        entries: what a process that reads it sees.
        writes: how many transactions succeeded.
        fsync: whether a transaction is on the disk when it is done, as it must be. Without, the
            last `CACHE` of them are in the memory of the kernel: a crash of the process keeps
            them, a loss of power does not.
        latency: seconds that a transaction takes.
        writing: whether one has begun, and whoever waits for it has not seen it end.
    """

    __slots__ = (
        "_failures",
        "_unsynced",
        "_why",
        "entries",
        "fsync",
        "latency",
        "writes",
        "writing",
    )

    def __init__(self, entries: Mapping[bytes, bytes]) -> None:
        self.entries: dict[bytes, bytes] = {}
        self._apply(entries)
        self.writes = 0
        self.fsync = True
        self.latency = 0.0
        self.writing = False
        self._failures = 0
        self._why = ""
        self._unsynced: deque[dict[bytes, bytes | None]] = deque(maxlen=CACHE)

    def fail(self, times: int, why: str = "no space left on device") -> None:
        """Refuse the next `times` writes; 0 repairs the disk."""
        self._failures, self._why = times, why

    def image(self) -> dict[bytes, bytes]:
        """A copy of what is on it: a backup."""
        return dict(self.entries)

    def write(self, changes: Iterable[tuple[bytes, bytes | None]]) -> str | None:
        """Carry out a transaction; returns why it could not, and then nothing has changed."""
        if self._failures:
            self._failures -= 1
            return self._why
        changed = dict(changes)
        before = {key: self.entries.get(key) for key in changed}
        self._apply(changed)
        if self.fsync:
            self._unsynced.clear()
        else:
            self._unsynced.append(before)
        self.writes += 1
        return None

    def durable(self) -> Mapping[bytes, bytes]:
        """What would be left if the power failed now."""
        if not self._unsynced:
            return self.entries
        left = Disk(self.entries)
        for undo in reversed(self._unsynced):
            left._apply(undo)  # another disk
        return left.entries

    def power_loss(self) -> int:
        """Forget what was not synced; returns how many transactions that were."""
        lost = len(self._unsynced)
        while self._unsynced:
            self._apply(self._unsynced.pop())
        return lost

    def restore(self, backup: Mapping[bytes, bytes]) -> None:
        """Put back entries that were copied earlier, in place of what is there."""
        self.entries = {}
        self._apply(backup)
        self._unsynced.clear()

    def _apply(self, changes: Mapping[bytes, bytes] | Mapping[bytes, bytes | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[_share(key)] = _share(value)
