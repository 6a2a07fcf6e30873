"""Other bytes for the same values: each msgpack header once in every wider form it may have.

References:
    https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from collections.abc import Iterator

import msgpack

ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the base point of Ed25519 (RFC 8032, section 5.1)."""


def malleated(signature: bytes) -> Iterator[bytes]:
    """Signatures with other bytes that fulfil the same equation: S grows by the order."""
    number = int.from_bytes(signature[32:], "little") + ORDER
    while number < 1 << 256:
        yield signature[:32] + number.to_bytes(32, "little")
        number += ORDER


def reencoded(packed: bytes) -> Iterator[bytes]:
    """Everything that decodes to the same as `packed`, an array, and has one header that is wider.

    What is nested in it counts as one value.
    """
    values = msgpack.unpackb(packed)
    parts = [msgpack.packb(value) for value in values]
    for wider in _wider_array(len(values)):
        yield wider + b"".join(parts)
    head = packed[: len(packed) - sum(map(len, parts))]
    for at, value in enumerate(values):
        for wider in _wider(value):
            yield head + b"".join([*parts[:at], wider, *parts[at + 1 :]])


def _wider(value: object) -> Iterator[bytes]:
    plain = msgpack.packb(value)
    match value:
        case bool():
            return
        case int():
            forms = [
                kind + value.to_bytes(size, "big")
                for kind, size in ((b"\xcc", 1), (b"\xcd", 2), (b"\xce", 4), (b"\xcf", 8))
                if 0 <= value < 1 << 8 * size
            ]
            forms += [b"\xd3" + value.to_bytes(8, "big")] if 0 <= value < 1 << 63 else []
        case str():
            text = value.encode()
            forms = [
                kind + len(text).to_bytes(size, "big") + text
                for kind, size in ((b"\xd9", 1), (b"\xda", 2), (b"\xdb", 4))
                if len(text) < 1 << 8 * size
            ]
        case bytes():
            forms = [
                kind + len(value).to_bytes(size, "big") + value
                for kind, size in ((b"\xc4", 1), (b"\xc5", 2), (b"\xc6", 4))
                if len(value) < 1 << 8 * size
            ]
        case list():
            inner = b"".join(map(msgpack.packb, value))
            forms = [head + inner for head in _wider_array(len(value))]
        case _:
            forms = []
    yield from (form for form in forms if form != plain)


def _wider_array(count: int) -> Iterator[bytes]:
    if count < 16:
        yield b"\xdc" + count.to_bytes(2, "big")
    yield b"\xdd" + count.to_bytes(4, "big")
