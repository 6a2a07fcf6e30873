r"""The bytes of a journal: one header, then transactions, each bound to the one before it.

    muslin state <format version> <salt, 32 hex digits>\n

    0      3      4        8            16          32           48          48 + length
    +------+------+--------+------------+-----------+------------+-----------+
    | mark | kind | length |  sequence  |  previous |  checksum  |  payload  |
    +------+------+--------+------------+-----------+------------+-----------+

    mark      the first three bytes of the salt, to look for
    kind      1 part of the base, 2 its last part, 3 a transaction
    length    of the payload, bytes, big-endian as all of it
    sequence  1, 2, 3, ... within the file
    previous  the checksum of the record before; zeros in the first
    checksum  BLAKE2b-128, keyed with the salt, of all before it and the payload
    payload   msgpack [key, value or nil, key, value or nil, ...]

A file begins with its *base*, all entries at that time, which was synced before the file got its
name. Transactions follow, each synced before the next is written. So a crash can damage only the
last of them, and only in a file whose base is whole; such a *torn* end is not part of the state.
Any other damage is something that no crash explains, and is never read past.

The salt is fresh for each file and known to nobody else: no stale blocks of an earlier file, and
no bytes that a member made us store, look like a record of this one. A record says which it
follows, so that it can be judged by itself: that is how damage in the middle, with whole records
behind it, is told from a torn end, and a gap, a repetition or another order from a good file.

References:
    Mohan et al. 1992, "ARIES", section 1: log records that are written, forced, and only then
    acted upon. https://www.sqlite.org/walformat.html, section 2: salts and chained checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from overlay.errors import ConfigError, WireError
from overlay.state import Change
from overlay.wire.packing import Fields, pack

# -- specification ---------------------------------------------------------------------------------

MAGIC: Final = b"muslin state"
FORMAT: Final = 1
SALT_SIZE: Final = 16
BASE: Final = 1
BASE_END: Final = 2
TRANSACTION: Final = 3

_HEAD: Final = struct.Struct(">3sBIQ16s")
_SUM_SIZE: Final = 16
RECORD_SIZE: Final = _HEAD.size + _SUM_SIZE
"""Bytes of a record without its payload."""

# -- implementation --------------------------------------------------------------------------------

LONGEST_HEADER: Final = 80
BASE_PART: Final = 1 << 20
"""About so many bytes of entries go into one part of the base: what is built at once is bounded."""

MAX_PAYLOAD: Final = 64 << 20


class DamagedError(ConfigError):
    """A journal has been changed by something else than a crash.

    Attributes:
        offset: where in the file.
    """

    def __init__(self, why: str, offset: int) -> None:
        super().__init__(why)
        self.offset = offset


class NewerError(ConfigError):
    """A journal of a format that is not known yet."""


class Chain(NamedTuple):
    """Where the next record goes: what it is bound to.

    Attributes:
        salt: of the file.
        sequence: of the last record; 0 before the first.
        last: its checksum.
    """

    salt: bytes
    sequence: int = 0
    last: bytes = bytes(_SUM_SIZE)

    def header(self) -> bytes:
        """The first line of the file."""
        return b"%s %d %s\n" % (MAGIC, FORMAT, self.salt.hex().encode())

    def record(self, kind: int, changes: Iterable[Change]) -> tuple[bytes, Chain]:
        """The next record, and the chain behind it."""
        payload = pack([part for change in changes for part in change])
        number = self.sequence + 1
        head = _HEAD.pack(self.salt[:3], kind, len(payload), number, self.last)
        checksum = _checksum(self.salt, head, payload)
        return head + checksum + payload, Chain(self.salt, number, checksum)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal says.

    Attributes:
        entries: the state.
        chain: for the next record.
        length: bytes of the file up to the end of its last whole record.
        torn: what is wrong behind it; empty when nothing is.
    """

    entries: dict[bytes, bytes]
    chain: Chain
    length: int
    torn: str


def base_records(entries: Mapping[bytes, bytes], chain: Chain) -> Iterator[tuple[bytes, Chain]]:
    """The base of a new file, part by part, each with the chain behind it."""
    part: list[Change] = []
    size = 0
    for key in sorted(entries):
        if size >= BASE_PART:
            record, chain = chain.record(BASE, part)
            yield record, chain
            part, size = [], 0
        part.append((key, entries[key]))
        size += len(key) + len(entries[key])
    yield chain.record(BASE_END, part)


def apply(entries: dict[bytes, bytes], changes: Iterable[Change]) -> None:
    """Carry out a transaction."""
    for key, value in changes:
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value


def read_journal(content: bytes) -> Contents:
    """Read a whole file.

    Raises:
        DamagedError: something is wrong that no crash explains; one clause.
        NewerError: a newer format; one clause. Nothing else.
    """
    chain, at = _read_header(content)
    entries: dict[bytes, bytes] = {}
    complete = False
    while at < len(content):
        record = _record(content, at, chain.salt)
        if isinstance(record, str):
            if complete and not _whole_behind(content, at, chain.salt):
                return Contents(entries, chain, at, record)
            raise DamagedError(f"record {chain.sequence + 1}: {record}", at)
        if wrong := _misplaced(record, chain, complete=complete):
            raise DamagedError(wrong, at)
        for key, value in _changes(record.payload, at):
            apply(entries, ((key, value),))
        complete = record.kind != BASE
        chain = Chain(chain.salt, record.sequence, record.checksum)
        at += RECORD_SIZE + len(record.payload)
    if not complete:
        raise DamagedError("it ends before its base does", at)
    return Contents(entries, chain, at, "")


class _Record(NamedTuple):
    kind: int
    sequence: int
    previous: bytes
    checksum: bytes
    payload: memoryview


def _read_header(content: bytes) -> tuple[Chain, int]:
    end = content.find(b"\n", 0, LONGEST_HEADER)
    words = content[: max(end, 0)].split(b" ")
    if b" ".join(words[:2]) != MAGIC or len(words) != 4:
        raise DamagedError("it is not a journal of Muslin (no header)", 0)
    if not words[2].isdigit() or int(words[2]) < 1:
        raise DamagedError("no format version", 0)
    if int(words[2]) > FORMAT:
        raise NewerError("was written by a newer Muslin")
    try:
        salt = bytes.fromhex(words[3].decode())
    except ValueError:
        salt = b""
    chain = Chain(salt)
    if chain.header() != content[: end + 1] or len(salt) != SALT_SIZE:
        raise DamagedError("the header is not one", 0)
    return chain, end + 1


def _record(content: bytes, at: int, salt: bytes) -> _Record | str:
    """The record at `at`, judged by itself, or why there is none."""
    if len(content) - at < RECORD_SIZE:
        return "it is cut short"
    head = content[at : at + _HEAD.size]
    mark, kind, length, sequence, previous = _HEAD.unpack(head)
    if mark != salt[:3]:
        return "it does not begin as one"
    begin = at + RECORD_SIZE
    if length > len(content) - begin:
        return "it is cut short"
    payload = memoryview(content)[begin : begin + length]
    checksum = content[at + _HEAD.size : begin]
    if checksum != _checksum(salt, head, payload):
        return "its checksum does not match"
    return _Record(kind, sequence, previous, checksum, payload)


def _misplaced(record: _Record, chain: Chain, *, complete: bool) -> str:
    expected = chain.sequence + 1
    if record.sequence != expected:
        return f"record {record.sequence} is where record {expected} should be"
    if record.previous != chain.last:
        return f"record {expected} does not follow the one before it"
    if record.kind not in ((TRANSACTION,) if complete else (BASE, BASE_END)):
        return f"record {expected} is of kind {record.kind}"
    return ""


def _whole_behind(content: bytes, at: int, salt: bytes) -> bool:
    """Whether any whole record begins behind `at`: then what is at `at` is not the end."""
    while (at := content.find(salt[:3], at + 1)) >= 0:
        if not isinstance(_record(content, at, salt), str):
            return True
    return False


def _changes(payload: memoryview, at: int) -> Iterator[Change]:
    try:
        fields = Fields.unpack_untrusted(payload, MAX_PAYLOAD, "transaction")
        for index in range(0, len(fields), 2):
            value = fields.any(index + 1)
            yield fields.bytes(index), None if value is None else fields.bytes(index + 1)
    except WireError as error:
        raise DamagedError(str(error), at) from error


def _checksum(salt: bytes, head: bytes, payload: bytes | memoryview) -> bytes:
    digest = blake2b(head, digest_size=_SUM_SIZE, key=salt)
    digest.update(payload)
    return digest.digest()
