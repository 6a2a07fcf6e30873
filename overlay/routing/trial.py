"""Whether segmented sends reach one peer whole: found out by trying, on the real path.

A network card that cuts bursts wrongly, or a far end that joins them wrongly, changes or loses
large bursts and nothing else. The AEAD turns every change into a loss, so the question is only
which trials are answered. A trial is a burst of some forty segments, sent in one of three ways:

    SEGMENTED   in one system call, cut by the kernel: what data wants to use
    SINGLY      the same burst, one system call per datagram
    SMALL       one datagram: says whether the path works at all

    round       1           2, 3, 4                        then
    sent        SEGMENTED   SEGMENTED, SINGLY, SMALL

      SEGMENTED answered, at any time .................... PROVEN
      else SINGLY answered ............................... FAILED: data goes datagram by datagram
      else SMALL answered twice .......................... PLEA to the far end to read datagram by
                                                           datagram, once, and all rounds again
      else nothing is known .............................. UNKNOWN

FAILED and UNKNOWN are tried again at a low rate for a while. That is also what heals a wrong
verdict: where 3 % of datagrams are lost, three bursts of forty fail one time in three.

References:
    Linux Documentation/networking/segmentation-offloads.rst (UDP_SEGMENT, UDP_GRO).
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import ClassVar, Final, NamedTuple

from overlay.config import Timing
from overlay.wire.handed import BOOL, INT, SECONDS, Handed, member, table

# -- specification ---------------------------------------------------------------------------------

ROUNDS: Final = 4
"""Rounds of one series. The first is SEGMENTED alone: nearly always that is all there is."""

SMALL_ANSWERS: Final = 2
"""Answered SMALL trials that prove the path to work."""

SERIES: Final = 10
"""Series until it is left at that."""

# -- implementation --------------------------------------------------------------------------------

_NEVER: Final = float("inf")


class Way(Enum):
    """What to do for one step of a trial."""

    SEGMENTED = auto()
    SINGLY = auto()
    SMALL = auto()
    PLEA = auto()  #: ask the far end to do without receive offload


class Verdict(StrEnum):
    """What is known of segmented sends to one peer."""

    TRYING = "trying"
    PROVEN = "proven"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Step(NamedTuple):
    """One thing to send. `number` tells the answers of trials apart."""

    way: Way
    number: int = 0


class Trial:
    """The trial of segmented sends to one peer at one endpoint.

    Whoever holds it sends what each verb returns and reports the answers by their numbers. For
    another endpoint or session, make another.

    Args:
        timing: `path_probe_retry` between rounds, `path_confirm_interval` between series.
        segmented: False where this end does not segment: a SMALL exchange is then all, and tells
            both ends what the other can take.
        now: monotonic seconds.
    """

    __slots__ = (
        "_due",
        "_number",
        "_pleaded",
        "_round",
        "_segmented",
        "_sent",
        "_series",
        "_singly",
        "_small",
        "_timing",
        "verdict",
    )

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("_number", "_round", "_series", "_small"), INT),
        **dict.fromkeys(("_pleaded", "_segmented", "_singly"), BOOL),
        _sent=table(INT, member(Way)),
        _due=SECONDS,
        verdict=member(Verdict),
    )

    def __init__(self, *, timing: Timing, segmented: bool, now: float) -> None:
        self._timing = timing
        self._segmented = segmented
        self.verdict = Verdict.TRYING
        self._number = 0
        self._sent: dict[int, Way] = {}
        self._pleaded = False
        self._series = 0
        self._begin(now)

    def _begin(self, at: float) -> None:
        self._series += 1
        self._round = 0
        self._singly = False  # whether a SINGLY trial was answered in this series
        self._small = 0  # SMALL trials answered in this series
        self._due = at

    @property
    def segments(self) -> bool:
        """Whether this end segments at all, as it was given."""
        return self._segmented

    @property
    def segmented(self) -> bool:
        """Whether data may be sent segmented now. True until the contrary is shown."""
        return self._segmented and self.verdict is not Verdict.FAILED

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next; None if never."""
        return None if self._due == _NEVER else self._due

    def on_deadline(self, now: float) -> list[Step]:
        """Do what is due: the steps to take now."""
        if now < self._due:
            return []
        return self._send(now) if self._round < ROUNDS else self._judge(now)

    def on_reply(self, number: int) -> None:
        """The trial of that number arrived whole. Answers to what was never sent do not count."""
        match self._sent.get(number):
            case Way.SEGMENTED:
                self._end(Verdict.PROVEN)
            case Way.SINGLY:
                self._singly = True
            case Way.SMALL:
                self._small += 1
                if not self._segmented:
                    self._end(Verdict.PROVEN)

    def _end(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self._due = _NEVER

    def _send(self, now: float) -> list[Step]:
        self._round += 1
        self._due = now + self._timing.path_probe_retry
        if not self._segmented:
            return [self._step(Way.SMALL)]
        if self._round == 1:
            return [self._step(Way.SEGMENTED)]
        return [self._step(way) for way in (Way.SEGMENTED, Way.SINGLY, Way.SMALL)]

    def _step(self, way: Way) -> Step:
        self._number += 1
        self._sent[self._number] = way
        return Step(way, self._number)

    def _judge(self, now: float) -> list[Step]:
        if self._singly:
            return self._later(Verdict.FAILED, now)
        if self._small >= SMALL_ANSWERS and not self._pleaded:
            self._pleaded = True
            self._begin(now + self._timing.path_probe_retry)  # the far end needs a moment
            return [Step(Way.PLEA)]
        known = self.verdict if self.verdict is Verdict.FAILED else Verdict.UNKNOWN
        return self._later(known, now)

    def _later(self, verdict: Verdict, now: float) -> list[Step]:
        if self._series < SERIES:
            self._begin(now + self._timing.path_confirm_interval)
        else:
            self._due = _NEVER
        self.verdict = verdict
        return []

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        assert 0 <= self._round <= ROUNDS
        assert 1 <= self._series <= SERIES
        assert len(self._sent) == self._number <= 3 * ROUNDS * SERIES
        assert self._due != _NEVER or self.verdict is not Verdict.TRYING
