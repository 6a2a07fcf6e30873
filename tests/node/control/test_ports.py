"""The handlers' idea of the engine and of the daemon is the real one."""

from __future__ import annotations

import inspect

import pytest

from node.control.ports import DaemonPort, EnginePort
from node.daemon import Daemon
from overlay.engine import Engine
from tests.support.daemon import FakeDaemon, FakeEngine

FIELDS = {"engine", "folder"}


def methods(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_") and name not in FIELDS]


def parameters(owner: type, name: str) -> list[str]:
    names = inspect.signature(getattr(owner, name)).parameters
    return [name for name in names if name != "self"]


@pytest.mark.parametrize("name", methods(EnginePort))
@pytest.mark.parametrize("engine", [Engine, FakeEngine])
def test_an_engine_has_every_method_with_the_same_parameters(engine, name) -> None:
    assert parameters(engine, name) == parameters(EnginePort, name)


@pytest.mark.parametrize("name", methods(DaemonPort))
@pytest.mark.parametrize("daemon", [Daemon, FakeDaemon])
def test_a_daemon_has_every_method_with_the_same_parameters(daemon, name) -> None:
    assert parameters(daemon, name) == parameters(DaemonPort, name)
