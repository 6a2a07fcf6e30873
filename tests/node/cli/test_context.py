"""The clauses of an error, and answers that are not what they should be."""

from __future__ import annotations

import io

import click
import pytest

from node.cli.context import CliError, Finite, doing, objects, read_line, seconds
from node.control.schema import ControlError
from node.errors import NodeError
from overlay.errors import ConfigError, RefusedError
from overlay.wire.offline import GRANT_LINE


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ControlError("busy", "64 clients", "try again"), "cannot fly: 64 clients: try again"),
        (NodeError("no wings", "grow some"), "cannot fly: no wings: grow some"),
        (RefusedError("no", "not allowed"), "cannot fly: not allowed"),
        (ConfigError("must be up", "sky"), "cannot fly: sky: must be up"),
        (PermissionError(13, "x", "/f"), "cannot fly: /f: permission denied: run as root"),
    ],
)
def test_every_expected_error_says_what_why_and_what_to_do(error, says) -> None:
    with pytest.raises(CliError) as caught, doing("cannot fly"):
        raise error
    assert str(caught.value) == says


def test_a_flag_with_an_impossible_value_is_wrong_usage() -> None:
    with pytest.raises(click.UsageError, match="--cidr: too small"), doing("cannot fly"):
        raise ConfigError("too small", "--cidr")


def test_a_closed_pipe_and_a_defect_pass_through() -> None:
    for error in (BrokenPipeError, ZeroDivisionError):
        with pytest.raises(error), doing("cannot fly"):
            raise error


@pytest.mark.parametrize("value", [None, "x", {}, [1], [{}, None]])
def test_an_answer_of_another_form_is_refused(value) -> None:
    with pytest.raises(ControlError) as caught:
        objects(value)
    assert caught.value.code == "bad-answer"


def test_a_list_of_objects_is_taken_as_it_is() -> None:
    assert objects([{"a": 1}]) == [{"a": 1}]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "-1", "x"])
def test_a_number_outside_its_range_or_beyond_all_is_wrong_usage(text) -> None:
    with pytest.raises(click.BadParameter):
        Finite(0.0).convert(text, None, None)


@pytest.mark.parametrize(
    "words",
    [
        "ping web -W nan",
        "bench web --seconds nan",
        "sim x.toml --until inf",
        "sim x.toml --window 0 nan",
    ],
)
def test_no_verb_takes_a_number_that_is_none(muslin, words) -> None:
    ran = muslin(*words.split())
    assert ran.code == 2
    assert "is not a finite number" in ran.err


@pytest.mark.parametrize(
    "words", ["cert sign", "cert install", "token revoke", "join", "join --token-file"]
)
def test_a_line_that_is_not_there_is_called_that(muslin, tmp_path, monkeypatch, words) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    where = {"": "what was given", "-": "standard input"}
    for given in (str(empty),) if "file" in words else where:
        ran = muslin(*words.split(), given)
        named = where.get(given, given)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.endswith(f": {named} is empty: give the whole line\n")


def test_the_longest_certificate_is_read_whole(tmp_path, monkeypatch) -> None:
    longest = "x" * GRANT_LINE.longest
    file = tmp_path / "certificate"
    file.write_text(longest + "\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(longest + "\n"))
    assert read_line(None, str(file)) == longest
    assert read_line("-") == longest


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800)]
)
def test_durations_have_units(text, value) -> None:
    assert seconds(text) == value
