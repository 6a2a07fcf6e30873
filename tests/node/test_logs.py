"""One line per event, in both formats, and no flood."""

from __future__ import annotations

import io
import json
import logging

import pytest

from node import logs
from node.logs import Allowance, EventLog, LineFormatter, LogFormat
from overlay.effects import Report


@pytest.fixture
def text():
    """An event log that writes text, and what it wrote."""
    stream = io.StringIO()
    logger = logging.Logger("test", logging.INFO)  # noqa: LOG001 - seen by this test alone
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(LogFormat.TEXT))
    logger.addHandler(handler)
    return EventLog(logger), stream


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("muslin", logging.INFO, "", 0, "%s", ("pod.added",), None)
    made.created = 1_700_000_000.125
    made.fields = fields
    return made


def test_a_text_line_has_time_level_event_and_fields() -> None:
    line = LineFormatter(LogFormat.TEXT).format(
        record(pod="web", address="10.244.0.2", rtt=0.25, up=True, via=None, count=3)
    )
    assert line == (
        "2023-11-14T22:13:20.125Z INFO pod.added"
        " pod=web address=10.244.0.2 rtt=0.25 up=true via=none count=3"
    )


def test_a_json_line_carries_the_same() -> None:
    line = LineFormatter(LogFormat.JSON).format(record(pod="web", rtt=0.25))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.125Z",
        "level": "info",
        "event": "pod.added",
        "pod": "web",
        "rtt": 0.25,
    }


@pytest.mark.parametrize("style", list(LogFormat))
def test_a_value_cannot_break_the_line_or_pretend_to_be_a_field(style) -> None:
    line = LineFormatter(style).format(record(peer='x\nINFO forged a="b" \x1b[31m \u202e'))
    assert "\n" not in line
    assert "\x1b" not in line
    assert "\u202e" not in line
    if style is LogFormat.TEXT:
        assert line.endswith(r'peer="x\nINFO forged a=\"b\" \u001b[31m \u202e"')


def test_a_traceback_stays_on_the_line() -> None:
    made = record()
    try:
        raise ValueError("x")
    except ValueError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    line = LineFormatter(LogFormat.TEXT).format(made)
    assert "ValueError" in line
    assert "\n" not in line


def test_a_library_line_is_an_event_named_after_its_logger() -> None:
    made = logging.LogRecord("asyncio", logging.WARNING, "", 0, "slow: %d", (3,), None)
    assert 'WARNING log.asyncio message="slow: 3"' in LineFormatter(LogFormat.TEXT).format(made)


def test_a_report_is_written_at_its_level(text) -> None:
    log, stream = text
    log.report(Report("peer.up", {"peer": "node2"}), now=0.0)
    log.report(Report("peer.probe", {"peer": "node2"}, debug=True), now=0.0)
    log.debug("peer.detail")
    log.warning("disk.full", error="x")
    lines = stream.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "INFO peer.up peer=node2",
        "WARNING disk.full error=x",
    ]


def test_a_flood_of_one_event_is_counted_and_does_not_silence_others(text) -> None:
    log, stream = text
    for _ in range(1000):
        log.report(Report("datagram.refused"), now=5.0)
    log.report(Report("peer.up"), now=5.0)
    log.report(Report("datagram.refused"), now=7.0)
    lines = [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()]
    assert len(lines) == logs.BURST + 2
    assert lines[-2:] == ["peer.up", f"datagram.refused suppressed={1000 - logs.BURST}"]


def test_an_allowance_never_exceeds_burst_plus_rate() -> None:
    allowance = Allowance(burst=3, per_second=2.0)
    passed = sum(allowance.take(now=step / 100) is not None for step in range(1001))
    assert passed == 3 + 20


def test_setup_sends_ours_at_its_level_and_libraries_only_when_something_is_wrong() -> None:
    root = logging.getLogger()
    ours = logging.getLogger(logs.LOGGER)
    before = root.handlers[:], root.level, ours.level
    stream = io.StringIO()
    try:
        logs.setup("debug", LogFormat.TEXT, stream)
        EventLog().debug("a.b")
        EventLog().info("a.c")
        logging.getLogger("library").info("chatter")
        logs.set_level("error")
        EventLog().info("a.d")
    finally:
        root.handlers[:], level, own_level = before
        root.setLevel(level)
        ours.setLevel(own_level)
    assert [line.split(" ")[2] for line in stream.getvalue().splitlines()] == ["a.b", "a.c"]
