"""Asks the daemon: blocking, standard library only, one connection per call.

A connection per call costs a tenth of a millisecond and has no state that a daemon restarted in
between could break; `muslin get --watch` simply calls again.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from node.control.address import short_path
from node.control.schema import LONGEST_ANSWER, ControlError, Request, decode_answer

DEFAULT_TIMEOUT: Final = 10.0


class ControlClient:
    """Calls methods of the daemon behind one control socket.

    Args:
        path: the socket, `DIR/control.sock`.
        timeout: seconds without a byte from the daemon after which a call fails.
    """

    def __init__(self, path: Path | str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._path = str(path)
        self._timeout = timeout
        self._next_id = 1

    def call(self, method: str, **params: object) -> object:
        """The result of `method`.

        Raises:
            ControlError: `not-running` when no daemon listens, `no-permission`, `timeout`,
                `connection-lost`, or whatever the daemon answered. Nothing else.
        """
        request = Request(self._next_id, method, params)
        self._next_id += 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._timeout)
            self._connect(connection)
            try:
                connection.sendall(request.encode())
                line = _read_line(connection)
            except TimeoutError as error:
                raise self._silent() from error
            except OSError as error:
                raise _lost() from error
        return decode_answer(line)

    def _connect(self, connection: socket.socket) -> None:
        try:
            with short_path(self._path) as path:
                connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise ControlError(
                "not-running",
                f"no daemon is running for {Path(self._path).parent}",
                "start it with muslin up, or name its folder with --state",
            ) from error
        except PermissionError as error:
            why = f"this user may not use {self._path}"
            fix = "run as root, or to look as a member of its control_group"
            raise ControlError("no-permission", why, fix) from error
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            why = f"{self._path} cannot be used ({error.strerror})"
            raise ControlError("not-running", why) from error

    def _silent(self) -> ControlError:
        return ControlError(
            "timeout",
            f"the daemon did not answer within {self._timeout:g} s",
            "look at its log",
        )


def _lost() -> ControlError:
    return ControlError(
        "connection-lost", "the daemon closed the connection", "look at its log, and start it again"
    )


def _read_line(connection: socket.socket) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := connection.recv(1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if chunk.endswith(b"\n"):
            return b"".join(chunks)
        if size > LONGEST_ANSWER:
            raise ControlError("bad-answer", "the daemon's answer is too long")
    raise _lost()
