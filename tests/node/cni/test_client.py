"""The plugin's own client against sockets that behave in every way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from node.cni import client
from node.cni.client import Refusal, ask
from node.control import client as commands
from node.control import schema
from node.control.schema import ControlError
from tests.support.cni import answering, refusing

BRIEFLY = 0.2
"""Seconds, where nobody answers."""


def code_of(state: Path, patience: float = 30.0) -> str:
    with pytest.raises(Refusal) as caught:
        ask(str(state), "pod.ready", {}, patience)
    assert "\n" not in caught.value.message
    return caught.value.code


@contextmanager
def serving(state: Path, serve: Callable[[socket.socket], None], times: int = 1) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state / "control.sock"))
        listener.listen()

        def accept() -> None:
            for _ in range(times):
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield
        thread.join()


def test_it_speaks_what_the_commands_speak() -> None:
    assert schema.VERSION == client.VERSION
    assert schema.SOCKET_PATH_MAX == client.SOCKET_PATH_MAX
    assert commands.LONGEST_ANSWER >= client.LONGEST_ANSWER


def test_a_request_is_answered(tmp_path) -> None:
    with answering(tmp_path, lambda method, params: {"method": method, **params}):
        answer = ask(str(tmp_path), "pod.add", {"netns": "/a\u00e9"})
    assert answer == {"method": "pod.add", "netns": "/a\u00e9"}


def test_a_deep_folder_is_reached(tmp_path, monkeypatch) -> None:
    deep = tmp_path.joinpath(*["d" * 40] * 4)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("control.sock")
        listener.listen()
        connected = threading.Thread(
            target=lambda: [listener.accept()[0].close() for _ in range(2)]
        )
        connected.start()
        assert code_of(deep) == "connection-lost"
        connected.join()


def test_a_refusal_keeps_its_words(tmp_path) -> None:
    daemon = answering(tmp_path, refusing("exists", "it is there", "delete it"))
    with daemon, pytest.raises(Refusal) as caught:
        ask(str(tmp_path), "pod.add", {})
    refusal = caught.value
    assert (refusal.code, refusal.message, refusal.fix) == ("exists", "it is there", "delete it")


def test_nobody_there_is_not_running(tmp_path) -> None:
    assert code_of(tmp_path / "nowhere") == "not-running"
    assert code_of(tmp_path) == "not-running"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "control.sock"))
    assert code_of(tmp_path) == "not-running"


def test_a_silent_daemon_is_a_timeout(tmp_path) -> None:
    done = threading.Event()
    with serving(tmp_path, lambda connection: done.wait() and None):
        assert code_of(tmp_path, BRIEFLY) == "timeout"
        done.set()


def test_a_full_queue_is_waited_for_and_then_a_timeout(tmp_path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(tmp_path / "control.sock"))
            assert code_of(tmp_path, BRIEFLY) == "timeout"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "connection-lost"),
        (b"{", "connection-lost"),
        (b"no json\n", "bad-answer"),
        (b"[]\n", "bad-answer"),
        (b"{}\n", "bad-answer"),
        (b'{"result": 7}\n', "bad-answer"),
        (b"\xff\n", "bad-answer"),
        (b'{"error": {}}\n', "failed"),
    ],
)
def test_other_answers_are_named(tmp_path, line, code) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(line)

    with serving(tmp_path, serve, times=2 if code == client.LOST else 1):
        assert code_of(tmp_path) == code


def test_a_daemon_that_was_replaced_meanwhile_is_asked_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(client, "BUSY_PAUSE", 0.001)
    answers = iter([b"", b'{"result": {"ready": true}}\n'])

    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(next(answers))

    with serving(tmp_path, serve, times=2):
        assert ask(str(tmp_path), "pod.ready", {}) == {"ready": True}


def test_a_daemon_that_dies_of_it_is_not_running(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(client, "BUSY_PAUSE", 0.001)

    def serve(connection: socket.socket) -> None:
        (tmp_path / "control.sock").unlink()

    with serving(tmp_path, serve):
        assert code_of(tmp_path) == "not-running"


def test_a_busy_daemon_is_asked_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(client, "BUSY_PAUSE", 0.001)
    answers = iter([True, True, False])

    def respond(method: str, params: dict[str, object]) -> object:
        if next(answers):
            raise ControlError("busy", "64 clients are connected")
        return {"ready": True}

    with answering(tmp_path, respond) as asked:
        assert ask(str(tmp_path), "pod.ready", {}) == {"ready": True}
    assert len(asked) == 3


def test_a_daemon_that_stays_busy_is_busy(tmp_path) -> None:
    with answering(tmp_path, refusing("busy")):
        assert code_of(tmp_path, 1.0) == "busy"
