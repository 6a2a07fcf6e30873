"""Tests of the record of a simulation."""

from __future__ import annotations

import json

from overlay.sim.link import Fate, Lost
from overlay.sim.trace import Trace
from overlay.wire.header import TYPE_DATA, TYPE_INITIATION, Header

INITIATION = Header(TYPE_INITIATION).encode() + bytes(100)
DATA = Header(TYPE_DATA, receiver=7, counter=9).encode() + bytes(20)


def a_trace() -> Trace:
    trace = Trace()
    trace.passage("node1", "node2", Fate(INITIATION, (0.01,), None), 0.0)
    trace.note("session.established", "node2", {"peer": "node1", "rtt": 0.1 + 0.2}, 0.01)
    trace.passage("node2", "node1", Fate(DATA, (0.02, 0.03), None), 0.01)
    trace.passage("node2", "198.18.0.9:6875", Fate(DATA, (), Lost.NOWHERE), 0.02)
    return trace


def test_every_entry_is_one_json_object_in_order():
    lines = [json.loads(line) for line in a_trace().lines()]
    assert [line["event"] for line in lines] == [
        "datagram",
        "session.established",
        "datagram",
        "datagram",
    ]
    assert lines[0]["arrives"] == [0.01]
    assert lines[0]["text"] == "outer initiation, 116 bytes"
    assert lines[1] == {
        "at": 0.01,
        "event": "session.established",
        "node": "node2",
        "peer": "node1",
        "rtt": 0.3,
    }
    assert lines[3]["lost"] == "nowhere"


def test_one_bit_of_one_datagram_changes_the_fingerprint():
    changed = a_trace()
    changed.passage("node1", "node2", Fate(DATA, (0.1,), None), 0.09)
    same = a_trace()
    same.passage("node1", "node2", Fate(DATA, (0.1,), None), 0.09)
    other = a_trace()
    other.passage("node1", "node2", Fate(DATA[:-1] + b"\x01", (0.1,), None), 0.09)
    assert changed.fingerprint() == same.fingerprint()
    assert changed.fingerprint() != other.fingerprint()


def test_the_diagram_shows_arrows_losses_and_notes():
    assert (
        a_trace().mermaid()
        == """\
sequenceDiagram
    participant node1
    participant node2
    participant 198_18_0_9_6875
    node1->>node2: 0.000 initiation, 116 bytes
    Note over node2: 0.010 session.established peer=node1 rtt=0.3
    node2->>node1: 0.010 data receiver 0x00000007 counter 9 segment 1/1 lane 0, 36 bytes (twice)
    node2-x198_18_0_9_6875: 0.020 data receiver 0x00000007 counter 9 segment 1/1 lane 0, \
36 bytes (nowhere)
"""
    )


def test_the_diagram_is_of_the_window_alone():
    text = a_trace().mermaid(since=0.01, until=0.01)
    assert "initiation" not in text
    assert "nowhere" not in text
    assert text.count("node2->>node1") == 1


def test_a_diagram_note_cannot_break_its_line():
    trace = Trace()
    trace.note("pod.added", "node1", {"why": "a;b#c\nend"}, 0.0)
    assert trace.mermaid().splitlines()[2] == "    Note over node1: 0.000 pod.added why=a,bc end"


def test_notes_are_found_by_event_and_node():
    trace = a_trace()
    trace.note("session.established", "node1", {"peer": "node2"}, 0.05)
    assert [note.node for note in trace.notes("session.established")] == ["node2", "node1"]
    assert [note.at for note in trace.notes(node="node1")] == [0.05]
    assert len(trace.notes()) == 2


def test_a_trace_without_datagrams_keeps_the_rest():
    trace = Trace(datagrams=False)
    trace.passage("node1", "node2", Fate(DATA, (0.01,), None), 0.0)
    trace.lost("node1", "node2", Lost.CUT, 0.0)
    trace.note("cut", "world", {}, 0.0)
    assert len(trace) == 1


def test_all_datagrams_are_kept_lost_ones_too():
    assert a_trace().datagrams() == [INITIATION, DATA, DATA]
