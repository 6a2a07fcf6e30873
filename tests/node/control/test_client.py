"""The blocking client against sockets that behave in every way."""

from __future__ import annotations

import ast
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import node.control.client
from node.control.client import ControlClient
from node.control.schema import ControlError, Request, encode_error, encode_result


@contextmanager
def daemon(
    path: Path, serve: Callable[[socket.socket], None], patience: float = 30.0
) -> Iterator[ControlClient]:
    """A client of a daemon that treats its one connection as `serve` does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield ControlClient(path, timeout=patience)
        thread.join()


def code_of(client: ControlClient) -> str:
    with pytest.raises(ControlError) as caught:
        client.call("status")
    assert "\n" not in caught.value.message
    return caught.value.code


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("control.sock")


def test_a_call_sends_one_line_and_returns_the_result(path) -> None:
    def serve(connection: socket.socket) -> None:
        request = Request.decode(connection.recv(1000))
        result = {"method": request.method, **request.params}
        line = encode_result(request.id, result)
        connection.sendall(line[:5])  # an answer may come in pieces
        connection.sendall(line[5:])

    with daemon(path, serve) as client:
        assert client.call("get", kind="nodes") == {"method": "get", "kind": "nodes"}


def test_the_daemons_error_is_raised(path) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(encode_error(1, ControlError("pod-exists", "pod web exists", "x")))

    with daemon(path, serve) as client:
        assert code_of(client) == "pod-exists"


def test_without_a_daemon_it_says_so_and_how_to_start_it(path) -> None:
    with pytest.raises(ControlError) as caught:
        ControlClient(path.absolute()).call("status")
    assert caught.value.code == "not-running"
    assert "muslin up" in caught.value.fix


def test_a_stale_socket_means_no_daemon(path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert code_of(ControlClient(path)) == "not-running"


def test_a_path_that_cannot_be_a_socket_means_no_daemon(path) -> None:
    assert code_of(ControlClient(Path("/dev/null/control.sock"))) == "not-running"


def test_a_silent_daemon_is_given_up(path) -> None:
    def listen(connection: socket.socket) -> None:
        while connection.recv(1000):
            pass

    with daemon(path, listen, patience=0.2) as client:
        assert code_of(client) == "timeout"


def test_a_daemon_that_goes_away_is_noticed(path) -> None:
    with daemon(path, lambda connection: connection.recv(1000)) as client:
        assert code_of(client) == "connection-lost"


def test_nonsense_is_an_error_not_a_crash(path) -> None:
    with daemon(path, lambda c: (c.recv(1000), c.sendall(b"\xff\xfe\n"))) as client:
        assert code_of(client) == "bad-request"


def test_an_endless_answer_is_cut(path, monkeypatch) -> None:
    monkeypatch.setattr(node.control.client, "LONGEST_ANSWER", 100_000)

    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        with suppress(OSError):  # the client hangs up
            while True:
                connection.sendall(b"x" * 65536)

    with daemon(path, serve) as client:
        assert code_of(client) == "bad-answer"


def test_it_imports_the_standard_library_only() -> None:
    for module in ("client", "schema", "address"):
        source = Path(node.control.client.__file__).with_name(f"{module}.py").read_text()
        for statement in ast.walk(ast.parse(source)):
            names = []
            if isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            elif isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or name.startswith("node.control."), name
