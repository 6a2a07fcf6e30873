"""Tests of bench.scripts: how scripts end, and what they refuse."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.scripts import INTERRUPTED, as_root, at_least, ended, parser_of
from overlay.errors import RefusedError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_ended_cleans_up_undisturbed(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    done = []

    def main() -> int:
        try:
            os.kill(os.getpid(), number)
            return 0
        finally:
            for again in (signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), again)
            done.append("taken down")

    assert ended("some", main) == INTERRUPTED
    assert done == ["taken down"]
    assert capsys.readouterr().err == "some: interrupted; everything was taken down\n"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_comes_of_it_otherwise_is_the_scripts_affair() -> None:
    assert ended("some", lambda: 7) == 7


def test_what_was_refused_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise RefusedError("no-tun", "there is no /dev/net/tun", "load the module tun")

    assert ended("some", main) == 1
    assert capsys.readouterr().err == "some: there is no /dev/net/tun: load the module tun\n"


@pytest.mark.parametrize(
    ("least", "text", "value"), [(1, "1", 1), (1, "20", 20), (0.5, "0.5", 0.5), (0.5, "3", 3.0)]
)
def test_numbers_that_are_large_enough(least: float, text: str, value: float) -> None:
    assert at_least(least)(text) == value


@pytest.mark.parametrize(
    ("least", "text"),
    [(1, "0"), (1, "-3"), (1, "1.5"), (1, "x"), (1, ""), (0.5, "0.4"), (0.5, "nan"), (0.5, "inf")],
)
def test_numbers_that_are_not(least: float, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of at least"):
        at_least(least)(text)


def test_who_may_not_make_namespaces_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["some"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as caught:
        as_root(parser_of("some", "Does something."))
    assert caught.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


SCRIPTS = {
    "churn": "--cycles",
    "hostile": "--turns",
    "kills": "--kills",
    "limits": "--seconds",
    "rekey": "--minutes",
    "replay": "--minutes",
    "upgrade": "--times",
    "vandalize": "--rounds",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_number_out_of_range_is_refused_before_anything_is_built(name: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(root / "scripts" / f"{name}.py"), SCRIPTS[name], "0"],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"scripts/{name}: error: argument {SCRIPTS[name]}"
    )
