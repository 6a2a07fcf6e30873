"""Asks the daemon: one request over its control socket, by the interpreter's builtin modules.

`node.control.client` does the same for the commands, with the standard library's modules, whose
imports take longer than the request; the lines are those of `node.control.schema`.

    socket missing, refused       no daemon runs            `Refusal` "not-running"
    "busy"                        its connections are all taken: asked again until patience ends
    connection closed             asked again, once: the daemon was replaced, or has died
    no answer in time             `Refusal` "timeout"

Whatever a plugin asks may be asked again: what is there already is answered, and what is gone
already is fine.

Waiting is the kernel's: SO_SNDTIMEO also bounds the connecting to a listener with a full queue
(unix(7)), where a connect that does not wait would fail.
"""

from __future__ import annotations

import _socket
import posix
import sys
import time

from node.cni.text import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.cni.spec import Json

SOCKET = "control.sock"
VERSION = 1
"""Of the control protocol."""

PATIENCE = 30.0
"""Seconds for one request: the daemon may wait for a block of addresses, or for the kernel."""

LOST = "connection-lost"
BUSY_PAUSE = 0.05
SOCKET_PATH_MAX = 107
LONGEST_ANSWER = 16 << 20

_LONG = 8 if sys.maxsize > 1 << 32 else 4
_NAMES = ("utf-8", "surrogateescape")
"""How names of files become bytes, whatever the locale says."""


class Refusal(Exception):
    """The daemon refused, or there is none.

    Attributes:
        code: stable, lower case, dashed.
        message: why, one clause.
        fix: what to do about it, one clause, or empty.
    """

    def __init__(self, code: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fix = fix


def ask(state: str, method: str, params: Json, patience: float = PATIENCE) -> Json:
    """One request to the daemon of a folder.

    Args:
        state: the node's folder.
        method: see `node.control.handlers`.
        params: its parameters.
        patience: seconds.

    Raises:
        Refusal: `not-running`, `no-permission`, `timeout`, `connection-lost`, `bad-answer`, or
            whatever the daemon answered. Nothing else.
    """
    end = time.monotonic() + patience
    lost = False
    while True:
        try:
            return _ask_once(state, method, params, max(end - time.monotonic(), BUSY_PAUSE))
        except Refusal as refusal:
            again = refusal.code == "busy" or (refusal.code == LOST and not lost)
            if not again or time.monotonic() + BUSY_PAUSE > end:
                raise
            lost = lost or refusal.code == LOST
        time.sleep(BUSY_PAUSE)


def _ask_once(state: str, method: str, params: Json, patience: float) -> Json:
    line = encode({"v": VERSION, "id": 1, "method": method, "params": params}) + "\n"
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        _bound(connection, patience)
        _connect(connection, state)
        connection.sendall(line.encode())
        answer = _read_line(connection)
    except (BlockingIOError, TimeoutError) as error:
        why = f"the daemon did not answer within {patience:g} s"
        raise Refusal("timeout", why, "look at its log") from error
    except (BrokenPipeError, ConnectionResetError) as error:
        raise _lost() from error
    finally:
        connection.close()
    return _result(answer)


def _bound(connection: _socket.socket, patience: float) -> None:
    """Let every wait of this socket end. A struct timeval is two native longs (socket(7))."""
    seconds, rest = divmod(patience, 1.0)
    value = b"".join(
        number.to_bytes(_LONG, sys.byteorder) for number in (int(seconds), int(rest * 1e6))
    )
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, value)
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, value)


def _connect(connection: _socket.socket, state: str) -> None:
    path, folder = f"{state}/{SOCKET}", -1
    try:
        if len(path.encode(*_NAMES)) > SOCKET_PATH_MAX:
            folder = posix.open(state, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
            path = f"/proc/self/fd/{folder}/{SOCKET}"
        connection.connect(path.encode(*_NAMES))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        why = f"no daemon is running for {state}"
        raise Refusal("not-running", why, "start it with muslin up") from error
    except PermissionError as error:
        why = f"this user may not use {state}/{SOCKET}"
        raise Refusal("no-permission", why, "run the container runtime as root") from error
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise
        raise Refusal(
            "not-running", f"{state}/{SOCKET} cannot be used: {error.strerror}"
        ) from error
    finally:
        if folder >= 0:
            posix.close(folder)


def _read_line(connection: _socket.socket) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := connection.recv(1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if chunk.endswith(b"\n"):
            return b"".join(chunks)
        if size > LONGEST_ANSWER:
            raise Refusal("bad-answer", "the daemon's answer is too long")
    raise _lost()


def _lost() -> Refusal:
    why = "the daemon closed the connection"
    return Refusal(LOST, why, "look at its log, and start it again")


def _result(line: bytes) -> Json:
    try:
        answer = decode(line.decode())
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        result, error = answer.get("result"), answer.get("error")
        if isinstance(result, dict):
            return result
        if isinstance(error, dict):
            code, message, fix = (str(error.get(key, "")) for key in ("code", "message", "fix"))
            raise Refusal(code or "failed", message, fix)
    why = "the daemon's answer is not of the expected form"
    raise Refusal("bad-answer", why, "use the plugin of the daemon's version")
