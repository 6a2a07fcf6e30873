"""Tests of overlay.writes: what waits for the disk, in which order, and what becomes of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.effects import (
    Effect,
    NetworkChanged,
    Persist,
    ProbeAnswered,
    Report,
    SendDatagram,
    SetOffload,
    TellLane,
)
from overlay.types import Endpoint, NodeId
from overlay.writes import Write, Writes, goes_at_once

THERE = Endpoint("192.0.2.1", 1)
PROBE = SendDatagram(THERE, b"probe", at_once=True)
NEWS = SendDatagram(THERE, b"news")


def persist(key: bytes, value: bytes = b"x") -> Persist:
    return Persist(((key, value),))


def drained(writes: Writes) -> list[Effect | Write]:
    """What is to be executed up to the next write, which is begun."""
    found: list[Effect | Write] = []
    while (what := writes.next()) is not None:
        found.append(what)
    return found


def test_without_a_disk_that_writes_everything_goes_in_order() -> None:
    writes, ends = Writes(), []
    assert writes.put([NEWS, Report("a"), PROBE], ends.append) == []
    assert writes.put([], ends.append) == []
    assert drained(writes) == [NEWS, Report("a"), PROBE]
    assert ends == [True, True]


def test_a_write_is_what_all_that_waits_wants_stored_and_a_later_value_counts() -> None:
    writes = Writes()
    writes.put([Report("a"), persist(b"1"), Report("b"), persist(b"2")])
    writes.put([Report("c"), persist(b"1", b"y"), Report("d")])
    first, write = drained(writes)
    assert first == Report("a")
    assert isinstance(write, Write)
    assert write.changes == ((b"1", b"y"), (b"2", b"x"))
    writes.on_written()
    assert drained(writes) == [Report("b"), Report("c"), Report("d")]


def test_equal_writes_are_not_mistaken_for_each_other() -> None:
    writes = Writes()
    writes.put([persist(b"1")])
    assert len(drained(writes)) == 1
    writes.put([persist(b"1"), Report("a")])
    writes.on_written()
    (second,) = drained(writes)
    assert isinstance(second, Write)


def test_what_says_nothing_that_is_stored_overtakes() -> None:
    writes = Writes()
    writes.put([persist(b"1"), NEWS, PROBE])
    drained(writes)
    assert writes.at_once() == [PROBE]
    assert writes.at_once() == []
    assert writes.put([NEWS, PROBE, NetworkChanged()]) == [PROBE]
    assert drained(writes) == []
    writes.on_written()
    assert drained(writes) == [NEWS, NEWS, NetworkChanged()]


def test_what_overtakes_is_how_to_send_answers_lanes_and_marked_datagrams() -> None:
    quick = [PROBE, SetOffload("x", on=True), ProbeAnswered(NodeId(bytes(32)), 1, 0.1)]
    assert all(map(goes_at_once, [*quick, TellLane(1, b"")]))
    assert not any(map(goes_at_once, [NEWS, Report("a"), NetworkChanged(), persist(b"1")]))


def test_a_write_that_failed_discards_what_followed_and_whatever_was_to_be_sent() -> None:
    writes, ends = Writes(), []
    one, two = persist(b"1"), persist(b"2")
    writes.put([one, Report("a")], lambda whole: ends.append(("one", whole)))
    writes.put([NEWS, Report("b")], lambda whole: ends.append(("two", whole)))
    writes.put([Report("c"), two, Report("d")], lambda whole: ends.append(("three", whole)))
    drained(writes)
    assert writes.on_failed() == [one, two]
    assert drained(writes) == [Report("b"), Report("c")]
    assert ends == [("one", False), ("three", False), ("two", True)]


def test_it_is_idle_when_nothing_waits_and_nothing_is_written() -> None:
    writes = Writes()
    seen = [writes.is_idle]
    writes.put([Report("a"), persist(b"1")])
    seen.append(writes.is_idle)
    assert writes.next() == Report("a")
    assert isinstance(writes.next(), Write)
    seen.append(writes.is_idle)
    writes.on_written()
    assert writes.next() is None
    assert [*seen, writes.is_idle] == [True, False, False, True]


def test_a_list_may_be_cut_and_all_may_be_forgotten() -> None:
    writes, ends = Writes(), []
    writes.put([Report("stop"), Report("never")], ends.append)
    assert writes.next() == Report("stop")
    writes.cut()
    assert (writes.next(), ends) == (None, [False])
    writes.put([persist(b"1"), Report("never")])
    drained(writes)
    writes.clear()
    writes.put([Report("a")])
    assert drained(writes) == [Report("a")]


STEPS = st.lists(
    st.one_of(
        st.lists(st.sampled_from("PNQ"), max_size=4),  # a list: persist, news, quick
        st.sampled_from(["written", "failed"]),
    ),
    max_size=20,
)


@given(STEPS)
def test_whatever_comes_nothing_is_told_before_all_that_was_decided_earlier_is_stored(
    steps: list[list[str] | str],
) -> None:
    writes = Writes()
    stored: set[int] = set()
    decided = 0
    doubted = 0  # what was decided up to here may have failed, and is nobody's to tell
    behind: dict[bytes, tuple[int, int]] = {}
    names = iter(range(1000))

    def execute() -> None:
        for effect in drained(writes):
            if isinstance(effect, SendDatagram) and not effect.at_once:
                first, last = behind.pop(effect.datagram)
                assert stored >= set(range(max(first, doubted), last))

    for step in steps:
        if isinstance(step, list):
            effects: list[Effect] = []
            for kind in step:
                if kind == "P":
                    effects.append(Persist(((b"%d" % decided, b""),)))
                    decided += 1
                else:
                    name = b"%d" % next(names)
                    behind[name] = 0, decided
                    effects.append(SendDatagram(THERE, name, at_once=kind == "Q"))
            assert all(goes_at_once(effect) for effect in writes.put(effects))
        elif writes.writing is not None and step == "written":
            stored |= {int(key) for key, _ in writes.writing.changes}
            writes.on_written()
        elif writes.writing is not None:
            writes.on_failed()
            doubted = decided
        execute()
