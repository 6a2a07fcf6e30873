"""`muslin up`: what it refuses before anything is touched, and what it hands to the daemon."""

from __future__ import annotations

import pytest

from node import daemon, preflight
from node.errors import NodeError
from node.identity import write_node
from node.logs import LogFormat
from node.loop import LoopKind
from node.state import StateFolder
from tests.node.test_identity import make_node


@pytest.fixture
def folder(state) -> StateFolder:
    """A folder with a node, on a machine that can run it."""
    made = StateFolder(state)
    made.create()
    write_node(made, make_node())
    return made


@pytest.fixture(autouse=True)
def started(monkeypatch) -> list[tuple[object, ...]]:
    """What was handed to the daemon, on a machine where everything is allowed."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(daemon, "run", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr("node.logs.setup", lambda *_: None)
    monkeypatch.setattr(preflight, "check_privilege", lambda: None)
    monkeypatch.setattr(preflight, "check_tun", lambda: None)
    return calls


def test_the_daemon_gets_the_settings_of_all_sources(muslin, folder, started, monkeypatch) -> None:
    folder.config.write_text('mtu = 1400\n[log]\nlevel = "error"\n')
    monkeypatch.setenv("MUSLIN_LOG_FORMAT", "json")
    flags = ("--listen", "192.0.2.1:7000", "--log-level", "debug", "--loop", "asyncio")
    assert muslin("up", *flags, "--advertise", "203.0.113.1", "--lanes", "3").code == 0
    ((config, used, reload),) = started
    assert used.path == folder.path
    assert (config.mtu, config.log_level, config.log_format) == (1400, "debug", LogFormat.JSON)
    assert config.lanes == 3
    assert (str(config.listen), config.loop) == ("192.0.2.1:7000", LoopKind.ASYNCIO)
    assert list(map(str, config.advertise)) == ["203.0.113.1:6875"]
    folder.config.write_text("mtu = 1300\n")
    assert reload().mtu == 1300
    assert reload().log_level == "debug"


def test_before_init_it_says_what_to_run_first(muslin, started) -> None:
    ran = muslin("up")
    assert ran.code == 1
    assert (
        "holds no node yet: run muslin init, muslin join TOKEN or muslin cert request first"
        in ran.err
    )
    assert started == []


def test_a_damaged_file_is_named(muslin, folder, started) -> None:
    path = folder.path / "identity.key"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    ran = muslin("up")
    assert ran.code == 1
    assert f"{path} is damaged (checksum mismatch): restore it from a backup" in ran.err
    assert started == []


def test_wrong_settings_are_all_in_the_line(muslin, folder, started) -> None:
    folder.config.write_text("mtu = 1\ntun = 5\n")
    ran = muslin("up", "--loop", "x")
    assert ran.code == 1
    assert ran.err.count("; ") == 2
    assert started == []


@pytest.mark.parametrize("check", ["check_privilege", "check_tun"])
def test_a_machine_that_cannot_run_it_is_one_line(
    muslin, folder, started, monkeypatch, check
) -> None:
    def refuse() -> None:
        raise NodeError("there is no /dev/net/tun", "run modprobe tun")

    monkeypatch.setattr(preflight, check, refuse)
    ran = muslin("up")
    assert ran.code == 1
    assert ran.err == "muslin: cannot run the daemon: there is no /dev/net/tun: run modprobe tun\n"
    assert started == []


def test_what_the_daemon_refuses_is_one_line(muslin, folder, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise NodeError("UDP port 6875 is in use", "choose another")

    monkeypatch.setattr(daemon, "run", refuse)
    ran = muslin("up")
    assert ran.code == 1
    assert ran.err == ("muslin: cannot run the daemon: UDP port 6875 is in use: choose another\n")


def test_privileges_are_given_up_before_the_daemon_runs(
    muslin, folder, monkeypatch, privileges_given_up
) -> None:
    monkeypatch.setattr(daemon, "run", lambda *_: privileges_given_up.append("run"))
    assert muslin("up").code == 0
    assert privileges_given_up == ["keep_secrets", "narrow", "run"]


@pytest.mark.parametrize(
    ("flags", "socket"),
    [
        ((), ""),
        (("--docker",), "/run/docker/plugins/muslin.sock"),
        (("--docker", "/srv/docker.sock"), "/srv/docker.sock"),
    ],
)
def test_docker_is_served_if_asked(muslin, folder, started, flags, socket) -> None:
    assert muslin("up", *flags).code == 0
    ((config, *_),) = started
    assert config.docker == socket
