"""What the daemon says while it runs: one line per change of state, on stderr.

    2026-03-01T09:15:02.118Z INFO session.established peer=node2 endpoint=192.0.2.2:6875
    {"time": "2026-03-01T09:15:02.118Z", "level": "info", "event": "session.established", ...}

The core does not log. It emits `Report` effects, and `EventLog.report` writes them: an event name
in dotted lower case and key=value fields. INFO is for what an operator may act on, DEBUG for
developers. The text form quotes and escapes values, so that a peer's text cannot fake a line.

Peers can cause some events, so every event name has its own allowance (`Allowance`): a burst
passes, a flood is counted, and the next line that passes says how many were left out.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TextIO

from overlay.effects import Report, Scalar

# -- field names: one spelling for one thing, in every event ---------------------------------------

FIELDS: Final[dict[str, str]] = {
    "address": "in the pod network",
    "applied": "keys of a reload that took effect",
    "cipher": "of a session",
    "code": "stable name of a problem or refusal",
    "confirmed": "how many members have said that they know it",
    "count": "how often, or how many",
    "drift": "seconds by which the clock was set",
    "endpoint": "underlay address and port",
    "error": "what was raised",
    "guard": "who checks what pods send",
    "interface": "name of a link",
    "key": "first digits of a public key",
    "lane": "number of a process that carries packets",
    "listen": "underlay address of this node",
    "message": "text of a library's own log line",
    "mtu": "bytes",
    "needs_restart": "keys of a reload that wait for the next start",
    "node": "name of this node, or of the one it is about",
    "offloads": "what the kernel does for us",
    "owner": "of a pod: cli, or who else made it",
    "pid": "of another daemon of this node",
    "peer": "name of another node, or its short id before the name is known",
    "pod": "name of a pod of this node",
    "prefix": "an address block",
    "repaired": "what of the kernel somebody else had changed and is as it was again",
    "silent": "seconds since a member was heard",
    "suppressed": "lines of the same event left out since the last one that was written",
    "task": "name of a task",
    "traceback": "of a crash",
    "was": "the value before",
    "what": "what is wrong",
    "why": "the cause, in one clause",
}
"""Every field that a line may have. `tests/arch` holds core and daemon to it."""

ERROR: Final = "error"
SUPPRESSED: Final = "suppressed"
TASK: Final = "task"

LOGGER: Final = "muslin"

BURST: Final = 20
"""Lines of one event that pass at once: a lab of 20 nodes starting up is not cut."""
PER_SECOND: Final = 1.0
"""Lines of one event per second in the long run."""


class LogFormat(StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


class Allowance:
    """How many lines of one event may still be written (a token bucket).

    >>> allowance = Allowance(burst=1, per_second=1.0)
    >>> [allowance.take(now=t) for t in (0.0, 0.1, 0.2, 2.0)]
    [0, None, None, 2]
    """

    __slots__ = ("_burst", "_left", "_per_second", "_suppressed", "_then")

    def __init__(self, burst: float = BURST, per_second: float = PER_SECOND) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._then = float("-inf")
        self._suppressed = 0

    def take(self, *, now: float) -> int | None:
        """The number of lines left out before this one; None: leave this one out, too."""
        self._left = min(self._burst, self._left + (now - self._then) * self._per_second)
        self._then = now
        if self._left < 1.0:
            self._suppressed += 1
            return None
        self._left -= 1.0
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


class EventLog:
    """Writes events through the standard `logging` module.

    Args:
        logger: where lines go; the project's own by default.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(LOGGER)
        self._allowances: dict[str, Allowance] = {}

    def report(self, report: Report, *, now: float) -> None:
        """Write what the core reports, within the event's allowance."""
        level = logging.DEBUG if report.debug else logging.INFO
        if not self._logger.isEnabledFor(level):
            return
        allowance = self._allowances.setdefault(report.event, Allowance())
        suppressed = allowance.take(now=now)
        if suppressed is None:
            return
        fields = dict(report.fields)
        if suppressed:
            fields[SUPPRESSED] = suppressed
        self._write(level, report.event, fields)

    def info(self, event: str, **fields: Scalar) -> None:
        """Something an operator may act on. Not limited: only local acts may lead here."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Scalar) -> None:
        """Something an operator should act on."""
        self._write(logging.WARNING, event, fields)

    def debug(self, event: str, **fields: Scalar) -> None:
        """Something only a developer wants."""
        self._write(logging.DEBUG, event, fields)

    def _write(self, level: int, event: str, fields: Mapping[str, Scalar]) -> None:
        self._logger.log(level, "%s", event, extra={"fields": fields})


class LineFormatter(logging.Formatter):
    """One record, one line, in either format; a traceback becomes the field `traceback`."""

    def __init__(self, style: LogFormat) -> None:
        super().__init__()
        self._json = style is LogFormat.JSON

    def format(self, record: logging.LogRecord) -> str:
        """The line for `record`, without a newline at its end or inside."""
        when = datetime.fromtimestamp(record.created, UTC)
        time = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event, fields = _event_of(record)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if self._json:
            line = {"time": time, "level": record.levelname.lower(), "event": event, **fields}
            return json.dumps(line, ensure_ascii=True)
        return " ".join([time, record.levelname, event, *map(_pair, fields.items())])


def _event_of(record: logging.LogRecord) -> tuple[str, dict[str, Scalar]]:
    fields = getattr(record, "fields", None)
    if fields is not None:
        return record.getMessage(), dict(fields)
    return f"log.{record.name}", {"message": record.getMessage()}  # a library's own logger


_PLAIN = re.compile(r"[!#-<>-~]+", re.ASCII)  # visible ASCII without the quote and equals signs


def _pair(item: tuple[str, Scalar]) -> str:
    key, value = item
    match value:
        case None:
            text = "none"
        case bool():
            text = "true" if value else "false"
        case float():
            text = f"{value:.6g}"
        case _:
            text = str(value)
    return f"{key}={text if _PLAIN.fullmatch(text) else json.dumps(text)}"


def setup(level: str, style: LogFormat, stream: TextIO | None = None) -> None:
    """Send everything of `level` and above to `stream` (stderr), and nothing anywhere else."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries: only what is wrong
    set_level(level)


def set_level(level: str) -> None:
    """Change the level of Muslin's own lines (`debug`, `info`, `warning`, `error`)."""
    logging.getLogger(LOGGER).setLevel(level.upper())
