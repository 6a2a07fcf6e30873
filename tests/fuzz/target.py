"""What the fuzzer runs: a function of bytes that raises when there is a defect."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Run = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """One way for untrusted bytes into the program.

    Attributes:
        name: for the command line.
        run: takes any bytes; raises if that shows a defect.
        seeds: inputs that get far: what honest senders send.
        longest: bytes of an input worth trying.
    """

    name: str
    run: Run
    seeds: Callable[[], list[bytes]]
    longest: int = 4096


def refusing(decode: Callable[[bytes], Any], *errors: type[Exception]) -> Callable[[bytes], Any]:
    """`decode`, with None for input that it refuses by raising one of `errors`."""

    def run(data: bytes) -> Any:
        try:
            return decode(data)
        except errors:
            return None

    return run


def framed(*messages: bytes) -> bytes:
    """Several messages as one input; see `frames`."""
    return b"".join(struct.pack(">H", len(message)) + message for message in messages)


def frames(data: bytes, most: int) -> Iterator[bytes]:
    """The messages in an input, each behind 16 bits of length; the last may be short."""
    at = 0
    for _ in range(most):
        if at + 2 > len(data):
            return
        length = struct.unpack_from(">H", data, at)[0]
        yield data[at + 2 : at + 2 + length]
        at += 2 + length
