"""The only place that calls msgpack, and how decoded values are checked.

Everything Muslin signs, gossips, stores or sends as a structure is a msgpack array. msgpack says
nothing about what is in it, and decoding is where hostile bytes meet C code, so two things happen
here and nowhere else:

1. `unpack_untrusted` bounds what decoding may cost. A header of five bytes can claim an array of
   60,000 elements, and a decoder that believes it allocates half a megabyte for each of a
   thousand such headers nested in each other. So a first pass walks the bytes and builds nothing;
   only what is really there is built. Nesting is bounded too, because whatever walks the result
   later may recurse.
2. `Fields` gives typed access to a decoded array. Wrong type, size or range is `WireError`.

Packing is deterministic: equal values (lists and tuples of integers, bytes, text) are equal
bytes, because the packer always takes the shortest form. Signatures rely on it.

References:
    https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from typing import Final, Self

import msgpack  # type: ignore[import-untyped]  # ships no annotations

from overlay.errors import NewerError, StateError, WireError

# -- specification ---------------------------------------------------------------------------------

MAX_DEPTH: Final = 8
"""Arrays and maps inside each other. The deepest message of today has three levels."""

U8: Final = 2**8 - 1
U16: Final = 2**16 - 1
U32: Final = 2**32 - 1
U64: Final = 2**64 - 1
"""Largest values of unsigned integers, as bounds for `Fields.integer`."""

MAX_TIME: Final = 253_402_300_799
"""Largest Unix time: the last second of year 9999, after which calendars cannot print it."""

# -- implementation --------------------------------------------------------------------------------

_packer: Final = msgpack.Packer(use_bin_type=True)  # a new one begins with a megabyte of buffer

_Bytes = bytes  # inside `Fields`, `bytes` is the accessor


def pack(value: object) -> bytes:
    """The msgpack form of a value made of None, bool, int, float, str, bytes, list, tuple, dict.

    Raises:
        StateError: something else is in it, or an integer outside -2**63 to 2**64-1. Nothing
            else.

    >>> pack([1, b"ab", "c"]).hex()
    '9301c4026162a163'
    """
    try:
        packed: bytes = _packer.pack(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise StateError(f"cannot be packed: {error}") from error
    return packed


def unpack_untrusted(data: bytes | memoryview, limit: int) -> object:
    """The value that `data`, and nothing behind it, encodes. Arrays become lists.

    Args:
        data: msgpack bytes.
        limit: largest acceptable size in bytes.

    Raises:
        WireError: over the limit, not msgpack, cut short, trailing bytes, an extension type, text
            that is not UTF-8, a map key that is not text or bytes, or nested deeper than
            `MAX_DEPTH`. Nothing else.
    """
    size = len(data)
    if size > limit:
        raise WireError(f"{size} bytes are over the limit of {limit}")
    try:
        _walk(data, size)
        value: object = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=0,
            ext_hook=_refuse_extension,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"not a packed value ({_clause(error)})") from error
    _check_depth(value)
    return value


def _walk(data: bytes | memoryview, size: int) -> None:
    # Visits every header without building anything, so that a false claim costs nothing.
    walker = msgpack.Unpacker(max_buffer_size=max(size, 1), read_size=1)
    walker.feed(data)
    walker.skip()
    if walker.tell() != size:
        raise WireError(f"{size - walker.tell()} bytes behind a packed value")


def _refuse_extension(code: int, _data: bytes) -> object:
    raise WireError(f"not a packed value (extension type {code})")


def _clause(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _check_depth(value: object) -> None:
    # Level by level instead of recursively: the depth is what is not yet known to be harmless.
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item for outer in level for item in _children(outer) if isinstance(item, (list, dict))
        ]
        if not level:
            return
    raise WireError(f"nested deeper than {MAX_DEPTH} levels")


def _children(value: object) -> list[object]:
    if isinstance(value, list):
        return value
    return list(value.values()) if isinstance(value, dict) else []


class Fields:
    """Typed access to one decoded array, for decoders.

    More fields than expected are ignored (a newer sender), fewer are refused.

    Args:
        value: what `unpack_untrusted` returned, or one element of it.
        what: names the array in error messages ("certificate").
        count: least number of fields.

    Raises:
        WireError: `value` is no array, or a shorter one. The accessors raise it as well, for a
            field that is absent or not what was asked for. Nothing else.
    """

    __slots__ = ("_values", "_what")

    def __init__(self, value: object, what: str, count: int = 0) -> None:
        self._what = what
        if not isinstance(value, list):
            raise WireError(f"{what}: an array is needed")
        if len(value) < count:
            raise WireError(f"{what}: {len(value)} fields where {count} are needed")
        self._values = value

    @classmethod
    def unpack_untrusted(
        cls,
        data: _Bytes | memoryview,
        limit: int,
        what: str = "packed object",
        *,
        count: int = 0,
        version: int | None = None,
    ) -> Self:
        """Unpack `data` and open the array it holds.

        Args:
            data: msgpack bytes.
            limit: largest acceptable size in bytes.
            what: names the array in error messages.
            count: least number of fields.
            version: what field 0 must be, where the array starts with a version.

        Raises:
            WireError: see `unpack_untrusted` and the class. Nothing else.
        """
        try:
            value = unpack_untrusted(data, limit)
        except WireError as error:
            raise WireError(f"{what}: {error}") from error
        fields = cls(value, what, count)
        if version is not None and fields.integer(0) != version:
            raise NewerError(f"{what}: version {fields.integer(0)} is not known")
        return fields

    def __len__(self) -> int:
        return len(self._values)

    def integer(self, index: int, low: int = 0, high: int = U64) -> int:
        """An integer, `low <= value <= high`. A boolean is not an integer."""
        value = self._at(index)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(index, "is not an integer")
        if not low <= value <= high:
            raise self._wrong(index, f"is {value}, not between {low} and {high}")
        return value

    def boolean(self, index: int) -> bool:
        """True or false."""
        value = self._at(index)
        if not isinstance(value, bool):
            raise self._wrong(index, "is not a boolean")
        return value

    def text(self, index: int, limit: int) -> str:
        """Text of at most `limit` characters, all of them printable.

        What a peer sends ends up in logs and on terminals, so control characters (line ends,
        escape sequences) are refused here once instead of filtered in every such place.
        """
        value = self._at(index)
        if not isinstance(value, str):
            raise self._wrong(index, "is not text")
        if len(value) > limit:
            raise self._wrong(index, f"has {len(value)} characters, over the limit of {limit}")
        if not value.isprintable():
            raise self._wrong(index, "has control characters")
        return value

    def sequence(self, index: int, limit: int) -> list[object]:
        """An array of at most `limit` elements, unchecked: wrap each, or use `Fields` on it."""
        value = self._at(index)
        if not isinstance(value, list):
            raise self._wrong(index, "is not an array")
        if len(value) > limit:
            raise self._wrong(index, f"has {len(value)} elements, over the limit of {limit}")
        return value

    def fields(self, index: int, what: str, count: int = 0) -> Fields:
        """A nested array, opened."""
        return Fields(self._at(index), f"{self._what}: {what}", count)

    def bytes(
        self, index: int, size: int | None = None, limit: int | None = None, *, least: int = 0
    ) -> _Bytes:
        """A byte string of exactly `size`, or of `least` to `limit` bytes."""
        value = self._at(index)
        if not isinstance(value, bytes):
            raise self._wrong(index, "is not a byte string")
        if size is not None and len(value) != size:
            raise self._wrong(index, f"has {len(value)} bytes instead of {size}")
        if limit is not None and len(value) > limit:
            raise self._wrong(index, f"has {len(value)} bytes, over the limit of {limit}")
        if len(value) < least:
            raise self._wrong(index, f"has {len(value)} bytes, under the least of {least}")
        return value

    def any(self, index: int) -> object:
        """Whatever is there: for what never left this machine."""
        return self._at(index)

    def _at(self, index: int) -> object:
        if not 0 <= index < len(self._values):
            raise WireError(f"{self._what}: field {index} is missing")
        return self._values[index]

    def _wrong(self, index: int, clause: str) -> WireError:
        return WireError(f"{self._what}: field {index} {clause}")
