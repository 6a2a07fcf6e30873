"""What one process hands to the next, as each class declares it beside its own fields.

    class Pace:
        HANDED: ClassVar = Handed(_last=maybe(SECONDS), due_at=maybe(SECONDS))

    the old process    HANDED.write(pace)  -->  [3.5, None]      packed with all else
    the new process    HANDED.read([3.5, None])  -->  checked values, nothing changed yet
                       HANDED.put(pace, values)  -->  the new one goes on from there

Reading and putting are two steps, because a hand-over takes effect as a whole or not at all: all of
it is read before any of it is put. `part` is for what an object is made of: it is put in place.

Unlike what comes from peers, this was written by a process of the same node a moment ago. Types are
checked all the same, so that what does not fit is a refusal at the start and no defect later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from overlay.errors import WireError
from overlay.types import Endpoint, Prefix
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.packing import pack, unpack_untrusted

PACKED_LIMIT: Final = 128 << 20
"""Bytes of what is packed by itself."""

Values = Mapping[str, Any]
"""What was read of one object, by the names of its fields."""


class Codec(NamedTuple):
    """How one kind of value is written, and read again."""

    write: Callable[[Any], object]
    """To something that can be packed."""
    read: Callable[[object], Any]
    """Raises WireError for what `write` has not made. Nothing else."""
    put: Callable[[Any, Any], None] | None = None
    """For a part: gives the object that is there already what was read. None: it is replaced."""


class HandsOver(Protocol):
    """A class that declares what of it is handed over."""

    HANDED: ClassVar[Handed]


class Handed:
    """The fields of one class that are handed over.

    Args:
        codecs: by the names of the fields. One without a field says how another object is handed
            over as a whole.
    """

    __slots__ = ("codecs",)

    def __init__(self, **codecs: Codec) -> None:
        self.codecs: Final = codecs

    def write(self, of: object) -> list[object]:
        """The fields of an object, in the order they are declared."""
        return [codec.write(getattr(of, name)) for name, codec in self.codecs.items()]

    def read(self, value: object) -> Values:
        """What `write` wrote, by the names of the fields; changes nothing.

        Raises:
            WireError: it did not write this. Nothing else.
        """
        values = _array(value, len(self.codecs))
        pairs = zip(self.codecs.items(), values, strict=True)
        return {name: codec.read(one) for (name, codec), one in pairs}

    def put(self, into: object, values: Values) -> None:
        """Have an object go on from what `read` has read."""
        for name, codec in self.codecs.items():
            if codec.put is None:
                setattr(into, name, values[name])
            else:
                codec.put(getattr(into, name), values[name])


# -- kinds of values -------------------------------------------------------------------------------


def _array(value: object, count: int | None = None) -> list[object]:
    if not isinstance(value, list) or count not in (None, len(value)):
        raise WireError(f"handed over: an array of {count} was expected")
    return value


def _plain(kind: type) -> Codec:
    def read(value: object) -> object:
        if type(value) is not kind:
            raise WireError(f"handed over: {kind.__name__} was expected")
        return value

    return Codec(kind, read)


INT: Final = _plain(int)
BOOL: Final = _plain(bool)
TEXT: Final = _plain(str)
BYTES: Final = _plain(bytes)


def _read_seconds(value: object) -> float:
    if type(value) not in (float, int) or value != value:
        raise WireError("handed over: a time was expected")
    return float(value)  # type: ignore[arg-type]  # one of the two


SECONDS: Final = Codec(float, _read_seconds)
"""A monotonic time, or an interval; may be infinite."""


def maybe(codec: Codec) -> Codec:
    """The same, or None."""
    return Codec(
        lambda value: None if value is None else codec.write(value),
        lambda value: None if value is None else codec.read(value),
    )


def many(codec: Codec, make: Callable[[Iterable[Any]], Any] = list) -> Codec:
    """Any number of them: what `make` makes of an iterable. Sets are written in order."""

    def write(value: Iterable[Any]) -> object:
        ordered = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [codec.write(one) for one in ordered]

    return Codec(write, lambda value: make(codec.read(one) for one in _array(value)))


def table(key: Codec, of: Codec, make: Callable[[Mapping[Any, Any]], Any] = dict) -> Codec:
    """A dictionary, in its order."""
    return Codec(
        lambda value: [[key.write(one), of.write(each)] for one, each in value.items()],
        lambda value: make(
            {
                key.read(one): of.read(each)
                for one, each in (_array(pair, 2) for pair in _array(value))
            }
        ),
    )


def row(make: Callable[..., Any], *codecs: Codec) -> Codec:
    """A tuple of fixed length, as `make` makes it of its elements: a NamedTuple, or `pair`."""

    def write(value: Sequence[Any]) -> object:
        return [codec.write(one) for codec, one in zip(codecs, value, strict=True)]

    def read(value: object) -> Any:  # noqa: ANN401 - whatever `make` makes
        values = _array(value, len(codecs))
        return make(*[codec.read(one) for codec, one in zip(codecs, values, strict=True)])

    return Codec(write, read)


def pair(one: object, other: object) -> tuple[object, object]:
    """For `row`: just the two."""
    return one, other


def member(kind: type[Enum]) -> Codec:
    """A member of an enumeration, by its value."""

    def read(value: object) -> Enum:
        try:
            return kind(value)
        except ValueError as error:
            raise WireError(f"handed over: {value!r} is no {kind.__name__}") from error

    return Codec(lambda value: value.value, read)


def part(kind: type[HandsOver]) -> Codec:
    """An object that belongs to the one that declares it: both processes have one.

    Where putting the fields is not all there is to do, its class has a method `inherit` for that.
    """
    handed = kind.HANDED
    return Codec(handed.write, handed.read, getattr(kind, "inherit", handed.put))


def packed(codec: Codec) -> Codec:
    """The same as bytes of its own, where the levels of one packed value would not be enough."""
    return Codec(
        lambda value: pack(codec.write(value)),
        lambda value: codec.read(unpack_untrusted(BYTES.read(value), PACKED_LIMIT)),
    )


def later(handed: Handed) -> Codec:
    """An object whose values are put by whoever reads them, when it is there."""
    return Codec(handed.write, handed.read)


def each(handed: Handed, make: Callable[[Values], Any]) -> Codec:
    """An object that the new process makes from what was read."""
    return Codec(handed.write, lambda value: make(handed.read(value)))


def fresh(kind: type[HandsOver], new: Callable[[], object]) -> Codec:
    """An object of which the new process makes one, to be filled with what was read."""

    def make(values: Values) -> object:
        made = new()
        kind.HANDED.put(made, values)
        return made

    return each(kind.HANDED, make)


def keys(codec: Codec) -> Codec:
    """A dictionary that is used as an ordered set: its values are None."""
    return many(codec, dict.fromkeys)


# -- of the overlay --------------------------------------------------------------------------------

ENDPOINT: Final = row(Endpoint, TEXT, INT)
CLAIM: Final = row(Claim, BYTES, INT, INT, member(ClaimState), BOOL, BYTES)

YES: Final = Codec(lambda _: True, BOOL.read)
"""Whatever it was: what was remembered is to be computed anew."""


def _write_prefix(prefix: Prefix) -> bytes:
    return prefix.network_address.packed + bytes((prefix.prefixlen,))


def _read_prefix(value: object) -> Prefix:
    packed = BYTES.read(value)
    try:
        address, length = packed[:-1], packed[-1]
        if len(address) == 4:
            return IPv4Network((address, length))
        return IPv6Network((address, length))
    except (ValueError, IndexError) as error:
        raise WireError("handed over: a prefix was expected") from error


PREFIX: Final = Codec(_write_prefix, _read_prefix)


# A number of base two is the quickest way between flags and bits without numpy, whose threads start
# with it: a daemon imports this before it gives up capabilities, and those belong to threads.
_DIGIT_OF_FLAG: Final = bytes.maketrans(b"\x00\x01", b"01")
_FLAG_OF_DIGIT: Final = bytes.maketrans(b"01", b"\x00\x01")


def _write_flags(flags: bytearray) -> bytes:
    digits = bytes(flags).translate(_DIGIT_OF_FLAG)
    return int(digits or b"0", 2).to_bytes(len(flags) // 8, "big")


def _read_flags(value: object) -> bytearray:
    packed = BYTES.read(value)
    digits = format(int.from_bytes(packed, "big"), f"0{8 * len(packed)}b") if packed else ""
    return bytearray(digits.encode().translate(_FLAG_OF_DIGIT))


FLAGS: Final = Codec(_write_flags, _read_flags)
"""A bytearray of zeros and ones, a multiple of eight of them."""
