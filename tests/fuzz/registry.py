"""All targets, by name."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from tests.fuzz.target import Target

PARTS: Final = ("wire", "packets", "stored", "strangers", "members")


def self_test(data: bytes) -> None:
    """A decoder with a defect, three comparisons deep: a fuzzer that works finds it in no time."""
    if data[:1] == b"m" and data[1:2] == b"u" and len(data) > 3 and data[3] == 0x80:
        raise IndexError("the defect that is here on purpose")


SELF_TEST: Final = Target("self-test", self_test, lambda: [b"muslin"], 16)


def targets_of(part: str) -> list[Target]:
    """The targets of one module."""
    found: list[Target] = import_module(f"tests.fuzz.{part}").TARGETS
    return found


def find(name: str) -> Target:
    """A target by its name. No more is imported than it takes: instrumenting is slow.

    Raises:
        KeyError: there is none.
    """
    if name == SELF_TEST.name:
        return SELF_TEST
    for part in PARTS:
        for target in targets_of(part):
            if target.name == name:
                return target
    raise KeyError(name)


def all_targets() -> dict[str, Target]:
    """All, in the order of `PARTS`."""
    return {target.name: target for part in PARTS for target in targets_of(part)}
