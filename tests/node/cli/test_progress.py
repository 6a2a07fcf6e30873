"""What a terminal shows while something is slow."""

from __future__ import annotations

import io

from node.cli.progress import Progress
from tests.node.cli.test_animation import Terminal
from tests.support.processes import PATIENCE
from tests.support.waiting import eventually


def test_a_slow_wait_is_shown_and_removed() -> None:
    terminal = Terminal()
    with Progress("waiting for a member", terminal, patience=0.01):
        assert terminal.written.wait(30)
    shown = terminal.getvalue()
    assert "\r\x1b[Kmuslin: waiting for a member (0 s)" in shown
    assert shown.endswith("\r\x1b[K")


def test_a_quick_wait_shows_nothing() -> None:
    terminal = Terminal()
    with Progress("waiting", terminal):
        pass
    assert terminal.getvalue() == ""


def test_a_step_replaces_the_text_on_a_terminal() -> None:
    terminal = Terminal()
    with Progress("first", terminal, patience=1.0) as progress:  # "first" would be shown after it
        progress.say("second")
        assert terminal.written.wait(30)
    assert "first" not in terminal.getvalue()
    assert "muslin: second" in terminal.getvalue()


def test_elsewhere_only_steps_are_written() -> None:
    stream = io.StringIO()
    with Progress("waiting", stream, patience=0.0) as progress:
        progress.say("node1 has joined")
    assert stream.getvalue() == "muslin: node1 has joined\n"


def test_what_changes_all_the_time_is_shown_on_a_terminal_only() -> None:
    terminal, file = Terminal(), io.StringIO()
    with Progress("first", terminal, patience=0.01) as progress:
        progress.set("second")
        eventually(lambda: "muslin: second" in terminal.getvalue(), within=PATIENCE)
    with Progress("first", file, patience=0.0) as progress:
        progress.set("second")
    assert file.getvalue() == ""
