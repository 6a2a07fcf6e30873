"""A line that is rewritten and removed on a terminal, and nowhere else."""

from __future__ import annotations

import io
import itertools
import threading

from node.cli.animation import Animation

CLEAR = "\r\x1b[K"


class Terminal(io.StringIO):
    """A stream that is a terminal, and tells when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.written.set()


class Counting(Animation):
    """Shows how often it was drawn."""

    def __init__(self, stream: io.StringIO, interval: float) -> None:
        super().__init__(interval, stream)
        self._numbers = itertools.count()

    def drawn(self) -> str:
        return f"drawing {next(self._numbers)}"


def test_on_a_terminal_the_line_is_rewritten_in_place_and_removed() -> None:
    terminal = Terminal()
    with Counting(terminal, 0.01) as counting:
        counting._step("a step")
        for _ in range(2):
            terminal.written.clear()
            assert terminal.written.wait(30)
    shown = terminal.getvalue()
    assert shown.startswith(f"{CLEAR}drawing 0{CLEAR}drawing 1")
    assert shown.endswith(CLEAR)
    assert "\n" not in shown


def test_what_is_over_before_the_first_drawing_leaves_no_trace() -> None:
    terminal = Terminal()
    with Counting(terminal, 60.0):
        pass
    assert terminal.getvalue() == ""


def test_elsewhere_nothing_is_drawn_and_each_step_is_a_line() -> None:
    stream = io.StringIO()
    with Counting(stream, 0.0) as counting:
        counting._step("first")
        counting._step("second")
    assert stream.getvalue() == "muslin: first\nmuslin: second\n"
