"""What is broken on purpose: paths that are cut, machines that stop, disks that do not write.

                  pause                    crash
        PAUSED <---------- RUNNING ---------------------> OFF
          |                 ^   ^                          |
          +--- resume ------+   +------- start ------------+

A paused machine (SIGSTOP, a suspended VM) misses nothing but time: datagrams wait in its socket
buffer, deadlines come late. A crashed one loses all but its disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from itertools import combinations, product


class Power(StrEnum):
    """What a machine is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"


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

    def partition(self, groups: Iterable[Iterable[str]]) -> None:
        """Sever each group from the others; within a group nothing changes."""
        for left, right in combinations([list(group) for group in groups], 2):
            for source, destination in product(left, right):
                self.cut(source, destination)


class Disk:
    """What survives a crash: the state that was stored last.

    Attributes:
        state: the stored bytes.
        writes: how many succeeded.
    """

    __slots__ = ("_failures", "_why", "state", "writes")

    def __init__(self, state: bytes) -> None:
        self.state = state
        self.writes = 0
        self._failures = 0
        self._why = ""

    def fail(self, times: int, why: str = "no space left on device") -> None:
        """Refuse the next `times` writes; 0 repairs the disk."""
        self._failures, self._why = times, why

    def write(self, state: bytes) -> str | None:
        """Replace the stored state; returns why it could not, and then keeps the old one."""
        if self._failures:
            self._failures -= 1
            return self._why
        self.state = state
        self.writes += 1
        return None
