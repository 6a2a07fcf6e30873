"""What every verb shares: where the node lives, how to ask its daemon, how to say what failed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from node.control.client import DEFAULT_TIMEOUT, ControlClient
from node.control.schema import ControlError
from node.errors import NodeError, clauses
from node.state import StateFolder
from overlay.errors import ConfigError, OverlayError

DEFAULT_STATE: Final = "/var/lib/muslin"
STATE_VARIABLE: Final = "MUSLIN_STATE"

LONGEST_LINE: Final = 1 << 18
"""Characters read in search of a token, a request or a certificate; the longest of these, a
certificate with a long list of authorities, has 220,000."""

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

Json = dict[str, object]
"""One object of an answer."""

Command = TypeVar("Command", bound=Callable[..., Any])


class CliError(Exception):
    """A verb failed; `muslin: what: why: what to do` is all the user sees of it.

    Attributes:
        what: what failed; why: one clause; fix: one clause or empty.
        code: the stable code behind it, for callers that treat one case differently.
    """

    def __init__(self, what: str, why: str, fix: str = "", code: str = "failed") -> None:
        super().__init__(": ".join(clause for clause in (what, why, fix) if clause))
        self.code = code


@dataclass(slots=True)
class Invocation:
    """One run of `muslin`."""

    state: str = DEFAULT_STATE

    @property
    def folder(self) -> StateFolder:
        """The selected state folder."""
        return StateFolder(Path(self.state).absolute())

    def ask(self, method: str, *, patience: float = DEFAULT_TIMEOUT, **params: object) -> Json:
        """Ask the daemon of the folder for one object.

        Raises:
            ControlError: see `ControlClient.call`. Nothing else.
        """
        answer = ControlClient(self.folder.socket, patience).call(method, **params)
        return objects([answer])[0]

    def ask_list(self, method: str, **params: object) -> list[Json]:
        """Ask the daemon for a list of objects. Raises as `ask` does."""
        return objects(ControlClient(self.folder.socket).call(method, **params))


def objects(value: object) -> list[Json]:
    """A list of objects inside an answer, checked: the daemon may be of another version.

    Raises:
        ControlError: it is something else (`bad-answer`). Nothing else.
    """
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    why = "the daemon's answer is not of the expected form"
    raise ControlError("bad-answer", why, "use the muslin command of the daemon's version")


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def _set_state(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Invocation).state = value


def state_option(*, from_environment: bool = False) -> Callable[[Command], Command]:
    """The `--state DIR` that is accepted before and after the verb; the last one wins.

    Args:
        from_environment: on the outermost command only, else the variable would win over a flag.
    """
    return click.option(
        "--state",
        metavar="DIR",
        expose_value=False,
        is_eager=True,
        callback=_set_state,
        envvar=STATE_VARIABLE if from_environment else None,
        help=f"State folder of the node.  [default: ${STATE_VARIABLE} or {DEFAULT_STATE}]",
    )


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Turn every expected error inside the block into a `CliError` that says `what` failed.

    A flag with an impossible value is wrong usage instead, like a flag that does not exist.
    """
    try:
        yield
    except ControlError as error:
        raise CliError(what, error.message, error.fix, error.code) from error
    except BrokenPipeError:
        raise  # whoever read our output has seen enough: no failure of the verb
    except ConfigError as error:
        if error.key.startswith("--"):
            raise click.UsageError(f"{error.key}: {error}") from error
        raise CliError(what, clauses(error)[1]) from error
    except (OverlayError, OSError) as error:
        code, why, fix = clauses(error)
        raise CliError(what, why, fix, code) from error


def seconds(text: str) -> float:
    """A number with or without a unit: `90`, `90s`, `15m`, `1h`, `7d`.

    >>> seconds("15m")
    900.0
    """
    match = re.fullmatch(r"([0-9]+)([smhd]?)", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a duration, write 90s, 15m, 1h or 7d")
    return float(match[1]) * _UNITS[match[2]]  # "inf" for what is beyond all ranges


def read_line(given: str | None, file: str | None = None) -> str:
    """What was typed, or the first line of where it is: of standard input for "-", or of `file`.

    Raises:
        NodeError: `file` cannot be read, or there is nothing. Nothing else.
    """
    if given not in (None, "-"):
        line, where = str(given).strip(), "what was given"
    elif file is None:
        line, where = sys.stdin.readline(LONGEST_LINE).strip(), "standard input"
    else:
        line, where = _first_line(file), file
    if not line:
        raise NodeError(f"{where} is empty", "give the whole line", "nothing-given")
    return line


def _first_line(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return stream.readline(LONGEST_LINE).strip()
    except OSError as error:
        raise NodeError.of(f"reading {file}", error) from error


def next_steps(invocation: Invocation, *verbs: str) -> None:
    """Say on stderr which verbs come next: programs that read stdout must not find advice there."""
    state = "" if invocation.state == DEFAULT_STATE else f" --state {invocation.state}"
    steps = ", then ".join(f"muslin{state} {verb}" for verb in verbs)
    click.echo(f"next: {steps}", err=True)


class Finite(click.FloatRange):
    """A number in a range; `nan`, which is in every range of click's, and `inf` are in none."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """The number; fails as click's types do."""
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class CommandInside(click.Command):
    """A verb that ends in `-- CMD ...`: its own options may stand anywhere before the dashes.

    Without the dashes the first plain word after the target begins the command, so that options of
    the command are not taken for ours.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, with options in any place if there are dashes."""
        ctx.allow_interspersed_args = "--" in args
        return super().parse_args(ctx, args)
