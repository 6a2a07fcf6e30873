"""Running `muslin` inside the test process, as people do from a shell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from node import privileges
from node.cli.app import main
from tests.support.control import served
from tests.support.daemon import FakeDaemon


class Ran(NamedTuple):
    """What came of a command line."""

    code: int
    out: str
    err: str


Muslin = Callable[..., Ran]


@pytest.fixture(autouse=True)
def privileges_given_up(monkeypatch) -> list[str]:
    """What verbs gave up, in order; the test process keeps it."""
    given_up: list[str] = []
    for name in ("keep_secrets", "narrow"):
        monkeypatch.setattr(privileges, name, lambda *_, name=name: given_up.append(name))
    return given_up


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state folder of the node that commands talk to."""
    return tmp_path / "node"


@pytest.fixture
def muslin(state, capsys, monkeypatch) -> Muslin:
    """Runs `muslin ARGUMENTS` on the state folder."""
    monkeypatch.setenv("MUSLIN_STATE", str(state))

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        if code not in {0, 130} and captured.err:
            assert captured.err.count("\n") == 1, captured.err
            assert captured.err.startswith("muslin: ")
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def daemon(state: Path) -> Iterator[FakeDaemon]:
    """A pretended daemon behind the node's control socket."""
    state.mkdir(exist_ok=True)
    with served(state) as running:
        yield running
