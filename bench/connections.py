"""TCP connections one after another, as many as will go: a client and a server of its own.

    python -m bench.connections serve PORT
    python -m bench.connections connect HOST PORT SECONDS WORKERS

One exchange is connect, one byte there, one byte back, close by the server, close by the client:
the whole life of a connection, and nothing else. The server closes first, so that the state that
has to wait out (TIME_WAIT) is not the one that uses up the client's ports.

The client prints one JSON line. The server prints `{"ready": true}` and runs until it is ended.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

BACKLOG: Final = 1024
TIMEOUT: Final = 5.0
"""Seconds that one exchange may take; a lost SYN is sent again after one."""


def serve(port: int, workers: int = 8) -> None:
    """Answer until the process is ended, in several threads."""
    with socket.create_server(("", port), backlog=BACKLOG) as server:
        sys.stdout.write(json.dumps({"ready": True, "port": server.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        threads = [threading.Thread(target=_answer, args=(server,)) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _answer(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with connection:
            try:
                connection.settimeout(TIMEOUT)
                if byte := connection.recv(1):
                    connection.send(byte)
            except OSError:
                continue  # the client gave up; it counts that itself


def exchange(host: str, port: int) -> bool:
    """One connection from its beginning to its end; whether it did what it should."""
    try:
        with socket.create_connection((host, port), TIMEOUT) as connection:
            connection.send(b"x")
            return connection.recv(1) == b"x" and connection.recv(1) == b""
    except OSError:
        return False


def connect(host: str, port: int, seconds: float, workers: int) -> dict[str, float]:
    """Exchanges for some time, each worker one after another.

    Returns:
        `done` and `failed` (how many), and `seconds` (how long it took in fact).
    """
    started = time.perf_counter()
    until = started + seconds

    def work(_: int) -> tuple[int, int]:
        done = failed = 0
        while time.perf_counter() < until:
            if exchange(host, port):
                done += 1
            else:
                failed += 1
        return done, failed

    with ThreadPoolExecutor(workers) as hands:
        counts = list(hands.map(work, range(workers)))
    return {
        "done": sum(done for done, _ in counts),
        "failed": sum(failed for _, failed in counts),
        "seconds": time.perf_counter() - started,
    }


def main(argv: list[str]) -> int:
    """Run one of the two commands of the module's description."""
    if argv[0] == "serve":
        serve(int(argv[1]))
        return 0
    result = connect(argv[1], int(argv[2]), float(argv[3]), int(argv[4]))
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
