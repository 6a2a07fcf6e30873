"""Commands inside network namespaces: run to their end, or in the background until told to end.

A background process gets a session of its own, so that Ctrl-C reaches the benchmark alone, which
then ends what it has started, by process id, in order.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from node.errors import NodeError

PATIENCE: Final = 60.0
"""Seconds that a command may take when nothing else is said."""

END_PATIENCE: Final = 3.0
"""Seconds that a process may take to end cleanly before it is killed."""


def inside(netns: str, *argv: str) -> list[str]:
    """The command line that runs `argv` in a namespace. `ip` then becomes the command itself."""
    return ["ip", "netns", "exec", netns, *argv]


def run(
    netns: str,
    *argv: str,
    patience: float = PATIENCE,
    text: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """The output of a command in a namespace.

    Args:
        netns: name of the namespace.
        argv: the command.
        patience: seconds; it is killed after that.
        text: its standard input.
        variables: its environment, if not ours.

    Raises:
        NodeError: it failed, does not exist, or took too long. Nothing else.
    """
    try:
        done = subprocess.run(
            inside(netns, *argv),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
            env=variables,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"{argv[0]} took more than {patience:g} s", code="timeout") from error
    except OSError as error:
        raise NodeError.of(f"running {argv[0]}", error) from error
    if done.returncode:
        raise NodeError(f"{' '.join(argv)}: {_last_line(done.stderr) or _last_line(done.stdout)}")
    return done.stdout


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


@contextmanager
def background(
    netns: str, *argv: str, log: Path | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command that runs in a namespace for the time of a `with` block.

    Args:
        netns: name of the namespace.
        argv: the command.
        log: file for all its output; without it, standard output is a pipe.
        variables: its environment, if not ours.

    Raises:
        NodeError: it cannot be started. Nothing else.
    """
    output = subprocess.PIPE if log is None else log.open("ab")
    try:
        process = subprocess.Popen(
            inside(netns, *argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=variables,
            start_new_session=True,
        )
    except OSError as error:
        raise NodeError.of(f"running {argv[0]}", error) from error
    finally:
        if not isinstance(output, int):
            output.close()
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """End a process that this one has started, politely at first; one that has ended is fine."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
