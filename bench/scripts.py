"""What scripts have in common that build things on this machine: how they end, numbers they take.

Ctrl-C and SIGTERM both become a KeyboardInterrupt, once: what cleans up on its way out is not
disturbed by another.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, TypeVar

from overlay.errors import OverlayError

INTERRUPTED: Final = 130
"""Exit code: 128 + SIGINT, as shells have it."""

_ENDING: Final = (signal.SIGINT, signal.SIGTERM)

Number = TypeVar("Number", int, float)


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, and let neither disturb the cleaning up that follows."""
    before = {number: signal.getsignal(number) for number in _ENDING}

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in _ENDING:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ended(name: str, main: Callable[[], int]) -> int:
    """What `main` returns; one line and another exit code if it was ended, or refused something.

    Args:
        name: of the script.
        main: does everything, and takes down what it built however it ends.

    Returns:
        What `main` returns, `INTERRUPTED`, or 1 after an `OverlayError`.
    """
    try:
        with _one_interrupt():
            return main()
    except KeyboardInterrupt:
        print(f"{name}: interrupted; everything was taken down", file=sys.stderr)
        return INTERRUPTED
    except OverlayError as error:
        fix = getattr(error, "fix", "")
        print(f"{name}: {error}" + (f": {fix}" if fix else ""), file=sys.stderr)
        return 1


def parser_of(name: str, doc: str | None) -> argparse.ArgumentParser:
    """What reads the command line of `scripts/NAME`, whose help is the docstring `doc`."""
    return argparse.ArgumentParser(
        prog=f"scripts/{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def as_root(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of a script that makes namespaces; whoever cannot is told so, and it exits."""
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.exit(1, f"{parser.prog}: network namespaces need root: run it with sudo\n")
    return options


def at_least(least: Number) -> Callable[[str], Number]:
    """A type for argparse: numbers of the kind of `least`, from there on.

    >>> at_least(1)("20")
    20
    >>> at_least(0.5)("0.25")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: '0.25' is not a number of at least 0.5
    """

    def number(text: str) -> Number:
        try:
            value = type(least)(text)
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {least}")
        return value

    return number
