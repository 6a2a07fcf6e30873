"""Wait for something to become true: by asking again, never by sleeping for long enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL = 0.05


def eventually(look: Callable[[], T], *, within: float, poll: float = POLL) -> T:
    """What `look` returns as soon as that is true.

    Args:
        look: returns something true when it is so. An AssertionError of it means "not yet".
        within: seconds; after them the last AssertionError, or a new one, is the test's failure.
        poll: seconds between two looks.
    """
    deadline = time.monotonic() + within
    while True:
        last_one = time.monotonic() >= deadline
        try:
            found = look()
            if found or last_one:
                assert found, f"still {found!r} after {within:g} s"
                return found
        except AssertionError:
            if last_one:
                raise
        time.sleep(poll)


def steady(look: Callable[[], T], *, within: float, poll: float = POLL) -> T:
    """What `look` returns twice in a row: nothing is under way that passes by itself.

    Args:
        look: returns something that can be compared.
        within: seconds; after them what still changes is the test's failure.
        poll: seconds between two looks.
    """
    seen = [look()]

    def is_as_before() -> bool:
        seen.append(look())
        return seen[-1] == seen[-2]

    eventually(is_as_before, within=within, poll=poll)
    return seen[-1]
