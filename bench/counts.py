"""Lists of numbers on the command line: of nodes, members, routes."""

from __future__ import annotations

from node.errors import NodeError


def counts(text: str, option: str) -> list[int]:
    """Numbers from 1 on, with commas between them.

    Args:
        text: what was given.
        option: to which option, for the error.

    Raises:
        NodeError: they are not. Nothing else.

    >>> counts("10,1000", "--nodes")
    [10, 1000]
    """
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise NodeError(f"{option} must be numbers with commas, not {text!r}") from error
    if min(found) < 1:
        raise NodeError(f"{option} must be at least 1 each")
    return found
