"""What happened in a world, in order: JSON lines for programs, a sequence diagram for people.

    {"at":0.01,"event":"datagram","from":"node2","to":"node1","text":"outer initiation, 548 bytes",
     "crc":"8a51b8d0","arrives":[0.02],"lost":null}
    {"at":0.02,"event":"session.established","node":"node1","peer":"node2"}

Two runs with the same seed give the same bytes: that is how a simulation proves that it is
repeatable, and how a change of the protocol shows where it first matters. The checksum stands for
the bytes of a datagram, so even a difference that only encryption shows is a difference.

Entries are kept as they come and turned into text when somebody asks: most are never read.

References:
    JSON Lines, https://jsonlines.org. Mermaid's sequence diagrams,
    https://mermaid.js.org/syntax/sequenceDiagram.html: `-x` is an arrow that does not arrive.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2s
from typing import Final, NamedTuple
from zlib import crc32

from overlay.effects import Scalar
from overlay.sim.link import Fate, Lost
from overlay.wire.describe import describe

DIGITS: Final = 6
"""Times are shown to the microsecond: finer than any timer, coarser than rounding errors."""

WORLD: Final = "world"
"""Who did what no machine did: cuts, heals."""


class Passage(NamedTuple):
    """A datagram was sent."""

    at: float
    source: str
    destination: str
    fate: Fate


class Note(NamedTuple):
    """Anything else: a machine's report, a fault, a delivered packet."""

    at: float
    event: str
    node: str
    fields: Mapping[str, Scalar]


Entry = Passage | Note

Watcher = Callable[[str, Mapping[str, Scalar]], None]
"""`watcher(node, fields)`."""


class Trace:
    """Everything that happened, in order.

    Args:
        datagrams: whether to keep datagrams, and reports for developers; a big world runs faster
            and smaller without.
    """

    __slots__ = ("_datagrams", "_entries", "_watchers")

    def __init__(self, *, datagrams: bool = True) -> None:
        self._datagrams = datagrams
        self._entries: list[Entry] = []
        self._watchers: dict[str, Watcher] = {}

    def __len__(self) -> int:
        return len(self._entries)

    # -- writing -----------------------------------------------------------------------------------

    def passage(self, source: str, destination: str, fate: Fate, now: float) -> None:
        """A datagram left `source` for `destination`."""
        if self._datagrams:
            self._entries.append(Passage(now, source, destination, fate))

    def lost(self, source: str, destination: str, why: Lost, now: float) -> None:
        """A read that was under way was lost at its destination."""
        if self._datagrams:
            self.note("datagram.lost", destination, {"from": source, "why": str(why)}, now)

    def note(
        self,
        event: str,
        node: str,
        fields: Mapping[str, Scalar],
        now: float,
        *,
        debug: bool = False,
    ) -> None:
        """`event` happened at `node`; `debug`: it interests developers only."""
        if self._datagrams or not debug:
            self._entries.append(Note(now, event, node, fields))
        if (watcher := self._watchers.get(event)) is not None:
            watcher(node, fields)

    def watch(self, event: str, watcher: Watcher) -> None:
        """Call `watcher` whenever `event` happens, after it was noted; one watcher per event."""
        self._watchers[event] = watcher

    # -- reading -----------------------------------------------------------------------------------

    def notes(self, event: str = "", node: str = "") -> list[Note]:
        """All notes of `event` at `node`; empty means any."""
        return [
            entry
            for entry in self._entries
            if isinstance(entry, Note) and event in ("", entry.event) and node in ("", entry.node)
        ]

    def datagrams(self) -> list[bytes]:
        """Every datagram that was sent, lost ones included."""
        return [entry.fate.datagram for entry in self._entries if isinstance(entry, Passage)]

    def lines(self) -> Iterator[str]:
        """One JSON object per entry, without line ends."""
        for entry in self._entries:
            fields = _passage_fields(entry) if isinstance(entry, Passage) else _note_fields(entry)
            yield json.dumps(fields, separators=(",", ":"))

    def fingerprint(self) -> str:
        """Equal for equal traces: 32 hex digits over all lines."""
        digest = blake2s(digest_size=16)
        for line in self.lines():
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()

    def mermaid(self, since: float = 0.0, until: float = float("inf")) -> str:
        """A sequence diagram of the window, both ends included, for any Markdown viewer.

        Participants stand in the order in which they first appear.
        """
        window = [entry for entry in self._entries if since <= entry.at <= until]
        participants: dict[str, None] = {}
        body: list[str] = []
        for entry in window:
            if isinstance(entry, Passage):
                participants |= {_plain(entry.source): None, _plain(entry.destination): None}
                body.append(_arrow(entry))
            else:
                participants[_plain(entry.node)] = None
                body.append(_note_over(entry))
        heads = [f"    participant {name}" for name in participants]
        return "\n".join(["sequenceDiagram", *heads, *body]) + "\n"


# -- as JSON ---------------------------------------------------------------------------------------


def _passage_fields(entry: Passage) -> dict[str, object]:
    datagram, arrivals, lost = entry.fate
    return {
        "at": round(entry.at, DIGITS),
        "event": "datagram",
        "from": entry.source,
        "to": entry.destination,
        "text": describe(datagram),
        "crc": f"{crc32(datagram):08x}",
        "arrives": [round(at, DIGITS) for at in arrivals],
        "lost": lost,
    }


def _note_fields(entry: Note) -> dict[str, object]:
    return {
        "at": round(entry.at, DIGITS),
        "event": entry.event,
        "node": entry.node,
        **{key: _rounded(value) for key, value in entry.fields.items()},
    }


def _rounded(value: Scalar) -> Scalar:
    return round(value, DIGITS) if isinstance(value, float) else value


# -- as a diagram ----------------------------------------------------------------------------------


def _arrow(entry: Passage) -> str:
    datagram, arrivals, lost = entry.fate
    text = describe(datagram).removeprefix("outer ")
    arrow = "-x" if lost else "->>"
    fate = f" ({lost.value.replace('_', ' ')})" if lost else " (twice)" if arrivals[1:] else ""
    ends = f"{_plain(entry.source)}{arrow}{_plain(entry.destination)}"
    return f"    {ends}: {entry.at:.3f} {text}{fate}"


def _note_over(entry: Note) -> str:
    details = " ".join(f"{key}={_rounded(value)}" for key, value in entry.fields.items())
    text = f"{entry.event} {details}".rstrip().replace(";", ",").replace("#", "").replace("\n", " ")
    return f"    Note over {_plain(entry.node)}: {entry.at:.3f} {text}"


def _plain(name: str) -> str:
    """A participant's name without what means something to mermaid (`:` in addresses, `-x`)."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)
