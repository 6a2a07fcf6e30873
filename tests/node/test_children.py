"""Children run this very code, from wherever they are started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from node import children


def test_a_child_finds_our_modules_wherever_it_starts(tmp_path: Path) -> None:
    variables = children.environment({"PATH": os.defpath})
    command = children.command("node", "--version")
    done = subprocess.run(
        command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("muslin ")


def test_what_a_child_inherits_stays_and_comes_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("OTHER", "kept")
    variables = children.environment()
    assert variables["PYTHONPATH"] == f"{children.PACKAGES}:/elsewhere"
    assert variables["OTHER"] == "kept"


def test_without_a_path_of_its_own_there_is_no_empty_entry() -> None:
    """An empty one would mean the working directory."""
    assert children.environment({})["PYTHONPATH"] == str(children.PACKAGES)
    assert children.environment({"PYTHONPATH": ""})["PYTHONPATH"] == str(children.PACKAGES)


def test_the_words_of_a_command_are_text() -> None:
    assert children.command("node.lab.traffic", "send", 5)[1:] == [
        "-m", "node.lab.traffic", "send", "5",
    ]  # fmt: skip
