"""Formatting and lint are tests like any other. Types are checked by `scripts/check`."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.arch.project import ROOT

pytestmark = pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")


@pytest.mark.parametrize("arguments", [("format", "--check"), ("check",)], ids=" ".join)
def test_ruff_has_nothing_to_say(arguments: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"\n{ran.stdout}{ran.stderr}"
