"""A TCP stream that goes on, and how much of it has arrived when.

    python -m tests.support.pump receive PORT FILE     one stream in; samples to FILE until it ends
    python -m tests.support.pump send HOST PORT        one stream out, until killed

A sample is a line of two numbers: monotonic seconds, and bytes so far. All processes of a machine
have the same monotonic clock.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CHUNK = 1 << 20
BETWEEN = 0.1
"""Seconds between samples."""


def receive(port: int, path: Path) -> None:
    """Take one stream to its end."""
    with socket.create_server(("", port)) as server, path.open("w") as samples:
        print(json.dumps({"ready": True}), flush=True)
        connection, _ = server.accept()
        buffer = bytearray(CHUNK)
        total, due = 0, 0.0
        with connection:
            while size := connection.recv_into(buffer):
                total += size
                now = time.monotonic()
                if now >= due:
                    due = now + BETWEEN
                    samples.write(f"{now} {total}\n")
                    samples.flush()


def send(host: str, port: int) -> None:
    """Send until killed."""
    data = bytes(CHUNK)
    with socket.create_connection((host, port)) as connection:
        while True:
            connection.sendall(data)


def goodput(path: Path, since: float, until: float) -> float:
    """Bytes a second that arrived between two moments, from the samples in a file."""
    # The last line may be half written.
    lines = path.read_text().rpartition("\n")[0].splitlines()
    samples = [(float(at), int(total)) for at, total in map(str.split, lines)]
    within = [sample for sample in samples if since <= sample[0] <= until]
    if len(within) < 2:
        return 0.0
    (began, first), (ended, last) = within[0], within[-1]
    # A stream that stands still writes nothing: what is over counts as time without bytes.
    return (last - first) / max(ended - began, until - since - 2 * BETWEEN)


def main(argv: Sequence[str]) -> None:
    """One of the two."""
    match argv:
        case ["receive", port, path]:
            receive(int(port), Path(path))
        case ["send", host, port]:
            send(host, int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
