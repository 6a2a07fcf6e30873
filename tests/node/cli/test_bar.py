"""What the bar shows of steps whose length is known."""

from __future__ import annotations

import io

from node.cli.bar import WIDTH, Bar, drawn
from tests.node.cli.test_animation import Terminal
from tests.support.processes import PATIENCE
from tests.support.waiting import eventually


def test_the_bar_grows_with_what_is_done_and_never_leaves_its_frame() -> None:
    assert drawn("x", 0.0, 9.0) == f"muslin: [{'-' * WIDTH}] x, 9 s left"
    assert drawn("x", 1.0, 0.0) == f"muslin: [{'#' * WIDTH}] x, 0 s left"
    assert drawn("x", 7.0, -3.0) == drawn("x", 1.0, 0.0)
    assert drawn("x", 0.5, 0.1).endswith("1 s left")


def test_on_a_terminal_it_is_drawn_and_removed() -> None:
    terminal = Terminal()
    with Bar(20.0, terminal, interval=0.01) as bar:
        bar.step("first", 10.0)
        bar.step("second", 10.0)
        second = "\r\x1b[Kmuslin: [############------------] second, "
        eventually(lambda: second in terminal.getvalue(), within=PATIENCE)
    shown = terminal.getvalue()
    assert shown.endswith("\r\x1b[K")
    assert "\n" not in shown


def test_elsewhere_each_step_is_a_line() -> None:
    stream = io.StringIO()
    with Bar(2.0, stream, interval=0.0) as bar:
        bar.step("first", 1.0)
        bar.step("second", 1.0)
    assert stream.getvalue() == "muslin: first\nmuslin: second\n"
