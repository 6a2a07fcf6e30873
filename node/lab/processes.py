"""The daemons of a lab as processes: start them, find them, end them.

A process is recognised by its command line, which names the node's state folder:

    python -m node --state /run/muslin/lab/NAME/node1 up

That works for daemons that an earlier command started, and after a crash in between. Signals go
through a pidfd, opened before the command line is read: whatever process id is reused in between,
the signal reaches the process that was looked at, or none.

References:
    pidfd_open(2), pidfd_send_signal(2), proc(5).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node import children
from node.errors import NodeError
from node.kernel import netns

STOP_PATIENCE: Final = 5.0
"""How long a daemon may take to stop cleanly before it is killed."""

COMMAND_PATIENCE: Final = 120.0
"""How long `init` or `join` may take. A join gives up by itself, but starts late on busy cores."""

_PROC: Final = Path("/proc")
_NOT_PASSED_ON: Final = ("MUSLIN_", "NOTIFY_SOCKET", "WATCHDOG_")
"""Variables of whoever runs the lab that would be mistaken for the daemons' own."""


def command(state: Path, *words: str) -> list[str]:
    """The command line of a verb on a node's state folder."""
    return children.command("node", "--state", state, *words)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The variables of a lab's daemons."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_PASSED_ON)}
    return children.environment(kept) | dict(settings)


def run_command(
    namespace: str, argv: Sequence[str], settings: Mapping[str, str], given: str = ""
) -> str:
    """Run a verb to its end inside a namespace, with `given` to read; returns its output.

    Raises:
        NodeError: it failed; the reason is what it said. Nothing else.
    """
    try:
        done = netns.run_in(
            namespace,
            subprocess.run,
            argv,
            env=environment(settings),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"it took more than {COMMAND_PATIENCE:g} s", code="timeout") from error
    if done.returncode != 0:
        raise NodeError(_last_line(done.stderr) or f"it ended with exit code {done.returncode}")
    return str(done.stdout)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("muslin: ") if lines else ""


def start_daemon(namespace: str, state: Path, log: Path, settings: Mapping[str, str]) -> int:
    """Start a node's daemon in its namespace, detached from this process; returns its id.

    Raises:
        NodeError: it cannot be started. Nothing else.
    """
    return netns.run_in(namespace, _spawn, command(state, "up"), log, environment(settings))


def _spawn(argv: Sequence[str], log: Path, variables: Mapping[str, str]) -> int:
    # posix_spawn: a Popen object would insist on being waited for, and daemons outlive us.
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        return os.posix_spawn(
            argv[0],
            list(argv),
            variables,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.fspath(log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # Ctrl-C is for the lab command, not for its daemons
            setsigdef=[signal.SIGINT, signal.SIGPIPE],
        )
    except OSError as error:
        raise NodeError.of(f"starting {argv[0]}", error) from error


@dataclass(frozen=True, slots=True)
class Process:
    """A process that works on a state folder."""

    pid: int
    pidfd: int
    is_daemon: bool
    """False for a verb that is still running."""


@contextmanager
def processes_of(folder: Path) -> Iterator[list[Process]]:
    """The processes that work on a state folder, for the time of a `with` block.

    Args:
        folder: a node's state folder; or a lab's folder, for those of all its nodes.
    """
    with ExitStack() as stack:
        found = []
        for entry in _PROC.iterdir():
            process = _look_at(int(entry.name), folder) if entry.name.isdigit() else None
            if process is not None:
                stack.callback(os.close, process.pidfd)
                found.append(process)
        yield found


def _look_at(pid: int, folder: Path) -> Process | None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None  # gone already
    try:
        argv = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        argv = []
    with suppress(ValueError, IndexError):
        flag = argv.index("--state")
        state = Path(argv[flag + 1])
        if argv[flag - 2 : flag] == ["-m", "node"] and folder in (state, state.parent):
            return Process(pid, pidfd, is_daemon="up" in argv[flag + 2 :])
    os.close(pidfd)
    return None


def daemon_pid(state: Path) -> int | None:
    """The process id of a node's daemon; None when it is not running."""
    with processes_of(state) as found:
        return next((process.pid for process in found if process.is_daemon), None)


def signal_daemon(state: Path, number: signal.Signals, patience: float) -> bool:
    """Send a signal to a node's daemon; whether it was running.

    A signal that ends processes is followed by waiting for that end, at most `patience` seconds.

    Raises:
        NodeError: it did not end in time. Nothing else.
    """
    with processes_of(state) as found:
        daemons = [process for process in found if process.is_daemon]
        _send(daemons, number)
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL) and _wait(daemons, patience):
            raise NodeError(f"the daemon of {state.name} did not end", code="timeout")
        return bool(daemons)


def end_all(folder: Path, patience: float = STOP_PATIENCE) -> None:
    """End all processes that work on a node, or on any node of a lab: politely, then at once."""
    with processes_of(folder) as found:
        _send(found, signal.SIGTERM)
        stubborn = _wait(found, patience)
        _send(stubborn, signal.SIGKILL)
        _wait(stubborn, patience)


def _send(processes: Sequence[Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process.pidfd, number)


def _wait(processes: Sequence[Process], patience: float) -> list[Process]:
    """Wait until all have ended; returns those that have not."""
    deadline = time.monotonic() + patience
    left = {process.pidfd: process for process in processes}
    poller = select.poll()
    for pidfd in left:
        poller.register(pidfd, select.POLLIN)
    while left and (remaining := deadline - time.monotonic()) > 0:
        for pidfd, _ in poller.poll(remaining * 1000):
            poller.unregister(pidfd)
            reap(left.pop(pidfd).pid)
    return list(left.values())


def has_ended(pid: int) -> bool:
    """Whether a daemon that this process started has ended."""
    if reap(pid):
        return True
    return not (_PROC / str(pid)).exists()


def reap(pid: int) -> bool:
    """Take note of the end of a child, if it is one and has ended; whether that is so."""
    try:
        ended, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False  # somebody else's child: init takes note of it
    return ended == pid
