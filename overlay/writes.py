"""What of a node's doings waits for its disk, and what goes on meanwhile.

    list of effects --+--> at once --------------------------> executed
                      |
                      '--> behind a Persist --> written? ----> executed, in order
                                                   |
                                                   '-- failed: what followed it is discarded

A disk may take seconds. What a node tells others of itself has to be on it by then, so everything
waits in the order in which it was decided, but what says nothing that is stored: probes and their
answers, what members say of each other's lives, handshakes and the upkeep of sessions, how to send.
A node that waits for its disk is no dead node, nor must it take its neighbours for dead.

One write is under way at a time. What is to be stored meanwhile is one write, the next: however
slow a disk is, the node is two writes behind at most.

Packets are no effects, so they wait for nothing.

References:
    DeWitt et al. 1984, "Implementation Techniques for Main Memory Database Systems", section 5.2:
    commits that come while the log is written share the next write (group commit).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from overlay.effects import Effect, Persist, ProbeAnswered, SendDatagram, SetOffload, TellLane
from overlay.state import Change

Done = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Write:
    """One transaction: all that is to be stored now.

    Attributes:
        parts: the effects that asked for it, in order.
    """

    parts: tuple[Persist, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """What differs; a later value of a key counts."""
        return tuple(dict(change for part in self.parts for change in part.changes).items())


class _List:
    """What is left of one list of effects, and who is told of its end."""

    __slots__ = ("done", "effects")

    def __init__(self, effects: Iterable[Effect], done: Done | None) -> None:
        self.effects = deque(effects)
        self.done = done

    def end(self, *, whole: bool) -> None:
        if self.done is not None:
            self.done(whole)


class Writes:
    """The effects of one node that have not been executed, in order.

    Whoever executes them calls `put`, executes what that returns, then calls `run`. When a write
    that this has begun is over, `on_written` or `on_failed` says so, and `run` goes on.

    Attributes:
        writing: the write that is under way.
        running: whether effects are being executed: what is put meanwhile comes behind them.
    """

    def __init__(self) -> None:
        self.writing: Write | None = None
        self.running = False
        self._lists: deque[_List] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, nor is written."""
        return not self._lists and self.writing is None

    def put(self, effects: Iterable[Effect], done: Done | None = None) -> list[Effect]:
        """Something was decided.

        Args:
            effects: to be executed.
            done: told when that is over: whether all was executed, so all is stored.

        Returns:
            What is to be executed now, whatever is being written.
        """
        added = _List(effects, done)
        self._lists.append(added)
        return _take_at_once(added) if self.writing is not None else []

    def run(self, begin: Callable[[Write], None], execute: Callable[[Effect], bool]) -> None:
        """Execute what need not wait. Does nothing when called by what it executes.

        Args:
            begin: begins a write, which may be over at once.
            execute: executes an effect; False leaves out what is left of its list.
        """
        if self.running:
            return
        self.running = True
        try:
            while (what := self.next()) is not None:
                if isinstance(what, Write):
                    begin(what)
                    for effect in self.at_once() if self.writing is not None else ():
                        execute(effect)
                elif not execute(what):
                    self.cut()
        finally:
            self.running = False

    def next(self) -> Effect | Write | None:
        """What comes next; None when there is nothing, or nothing before the disk has written."""
        while self._lists and self.writing is None:
            first = self._lists[0]
            if not first.effects:
                self._lists.popleft()
                first.end(whole=True)
            elif isinstance(first.effects[0], Persist):
                self.writing = self._gather()
                return self.writing
            else:
                return first.effects.popleft()
        return None

    def _gather(self) -> Write:
        """All that waits to be stored. It is stored before anything that it stood behind."""
        parts: list[Persist] = []
        for one in self._lists:
            parts += [effect for effect in one.effects if isinstance(effect, Persist)]
        return Write(tuple(parts))

    def at_once(self) -> list[Effect]:
        """What waits though it need not: to be asked for when a write has begun."""
        return [effect for one in self._lists for effect in _take_at_once(one)]

    def cut(self) -> None:
        """Leave out what is left of the list that the last effect is from."""
        if self._lists:
            self._lists.popleft().end(whole=False)

    def on_written(self) -> None:
        """The write that was under way is on the disk."""
        assert self.writing is not None
        written, self.writing = set(map(id, self.writing.parts)), None
        for one in self._lists:
            one.effects = deque(effect for effect in one.effects if id(effect) not in written)

    def on_failed(self) -> list[Persist]:
        """The write that was under way is not on the disk.

        What followed it is discarded, and everything that was to be sent: it may tell of what is
        not stored, and losing it is allowed.

        Returns:
            All that was to be stored and is not, in order.
        """
        lost: list[Persist] = []
        self.writing = None
        kept: deque[_List] = deque()
        for one in self._lists:
            stood = [isinstance(effect, Persist) for effect in one.effects]
            at = stood.index(True) if True in stood else len(stood)
            lost += [effect for effect in one.effects if isinstance(effect, Persist)]
            rest = [e for e in list(one.effects)[:at] if not isinstance(e, SendDatagram)]
            if at < len(stood):
                one.end(whole=False)
                one.done = None
            one.effects = deque(rest)
            kept.append(one)
        self._lists = kept
        return lost

    def clear(self) -> None:
        """The process is gone, and all that it was about to do."""
        self.writing = None
        self._lists.clear()


def _take_at_once(one: _List) -> list[Effect]:
    taken = [effect for effect in one.effects if goes_at_once(effect)]
    if taken:
        one.effects = deque(effect for effect in one.effects if not goes_at_once(effect))
    return taken


def goes_at_once(effect: Effect) -> bool:
    """Whether an effect says nothing that must have been stored."""
    match effect:
        case SendDatagram():
            return effect.at_once
        case SetOffload() | ProbeAnswered() | TellLane():
            return True
        case _:
            return False
