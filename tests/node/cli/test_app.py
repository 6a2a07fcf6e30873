"""The command as a whole: help, exit codes, the one line of an error."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest

import node
from node.cli import app
from node.cli.app import VERBS, cli, main
from node.cli.context import CliError
from node.version import software_version

ROOT = Path(node.__file__).parents[1]


def all_commands() -> list[tuple[str, click.Command]]:
    """Every command with its full name, groups included."""
    found: list[tuple[str, click.Command]] = [("", cli)]
    for verb, (module, attribute, _) in VERBS.items():
        command = getattr(import_module(module), attribute)
        found.append((verb, command))
        if isinstance(command, click.Group):
            found += [(f"{verb} {name}", sub) for name, sub in command.commands.items()]
    return found


COMMANDS = all_commands()


def shell(*arguments: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "node", *arguments]
    settings = {"capture_output": True, "text": True, "cwd": ROOT, "check": False, **keywords}
    return subprocess.run(argv, **settings)


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_every_verb_has_help_with_an_example(muslin, name) -> None:
    ran = muslin(*name.split(), "--help")
    assert ran.code == 0
    assert ran.err == ""
    assert "Example" in ran.out
    assert f"  muslin {name}".rstrip() in ran.out.partition("Example")[2]


def test_the_verbs_are_those_of_the_interface_so_far() -> None:
    promised = (
        "init token cert authority join up leave remove status doctor metrics get pod exec cni "
        "ping ipam bench lab sim"
    )
    assert " ".join(VERBS) == promised
    lab = dict(COMMANDS)["lab"]
    assert isinstance(lab, click.Group)
    assert set(lab.commands) == {"up", "status", "exec", "cut", "heal", "down"}


def test_each_overview_line_agrees_with_the_verb_s_own_help() -> None:
    for name, command in COMMANDS:
        if name:
            assert command.help, name
            assert command.get_short_help_str(1000)


@pytest.mark.parametrize(
    "name", [name for name, _ in COMMANDS if not name.startswith(("lab", "sim")) and name]
)
def test_the_state_folder_can_be_named_after_every_verb_of_a_node(name) -> None:
    command = dict(COMMANDS)[name]
    assert any("--state" in option.opts for option in command.params)


def test_the_last_state_wins_and_the_variable_is_the_default(muslin, tmp_path) -> None:
    variable = os.environ["MUSLIN_STATE"]
    assert f"for {variable}: " in muslin("status").err
    assert "for /a: " in muslin("--state", "/a", "status").err
    assert "for /b: " in muslin("--state", "/a", "status", "--state", "/b").err
    assert "for /c: " in muslin("get", "--state", "/c", "pods").err


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("get",),
        ("get", "cows"),
        ("get", "nodes", "-o", "xml"),
        ("status", "--colour"),
        ("pod",),
        ("pod", "paint"),
        ("exec", "web"),
        ("exec", "web", "--"),
        ("ping",),
        ("ping", "x", "-c", "0"),
        ("token", "--ttl", "soon"),
        ("init", "--cidr", "10.0.0.0/33"),
        ("init", "--cidr", "10.0.0.1/8"),
        ("init", "--cidr6", "fd00::1/8"),
        ("init", "--listen", "here"),
        ("init", "--block-prefix", "x"),
        ("join",),
        ("lab",),
        ("lab", "cut", "node1"),
        ("lab", "up", "--nodes", "many"),
        ("lab", "up", "--nodes", "0"),
        ("lab", "up", "--name", "A!"),
    ],
)
def test_wrong_usage_is_two_and_points_to_the_help(muslin, arguments) -> None:
    ran = muslin(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("muslin: wrong usage: ")
    assert ran.err.rstrip().endswith("--help")


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("get", "nodes"),
        ("token",),
        ("leave",),
        ("pod", "add", "web"),
        ("pod", "del", "web"),
        ("exec", "web", "--", "true"),
        ("ping", "web"),
    ],
)
def test_without_a_daemon_every_verb_says_so_and_fails(muslin, arguments) -> None:
    ran = muslin(*arguments)
    assert ran.code == 1
    assert ran.out == ""
    assert ": no daemon is running for " in ran.err
    assert ran.err.count(": ") == 3  # muslin, what, why, what to do


def test_an_error_is_one_line_whatever_is_in_it(muslin, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CliError("cannot\nfly", "no\r\n wings", "grow  some")

    monkeypatch.setattr(app.cli, "make_context", fail)
    assert main(["x"]) == 1
    assert capsys.readouterr().err == "muslin: cannot fly: no wings: grow some\n"


def test_the_version_is_shown_installed_or_not(muslin) -> None:
    ran = muslin("--version")
    assert ran.code == 0
    assert ran.out == f"muslin {software_version()}\n"


def test_without_arguments_it_shows_the_overview(muslin) -> None:
    ran = muslin()
    assert ran.code == 0
    assert all(f"\n  {verb} " in ran.out for verb in VERBS)


def heavy_modules(*words: str) -> str:
    """Those that a command line imports, as a list in text."""
    program = (
        f"import sys; from node.cli.app import main; main({list(words)})\n"
        "heavy = {'cryptography', 'pyroute2', 'numpy', 'msgpack', 'asyncio', 'uvloop', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return ran.stderr.splitlines()[-1]


def test_the_overview_imports_no_verb_and_nothing_heavy() -> None:
    assert heavy_modules("--help") == "[]"


def test_asking_the_daemon_imports_nothing_heavy() -> None:
    assert heavy_modules("--state", "/nowhere", "get", "pods") == "[]"


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        ran = shell("--help", stdout=closed, stderr=subprocess.PIPE, capture_output=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        ran = shell("--help", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert ran.returncode == 1
    assert ran.stderr == "muslin: cannot write the answer: no space left on device\n"


@pytest.mark.parametrize(
    ("closing", "words", "code", "err"),
    [
        (">&-", "--help", 0, ""),
        ("<&-", "join -", 1, "muslin: cannot join: standard input is empty: "),
        ("2>&-", "frobnicate", 2, ""),
        ("2>/dev/full", "frobnicate", 2, ""),
        ("<&- >&- 2>&-", "frobnicate", 2, ""),
    ],
)
def test_a_standard_stream_that_is_closed_or_full_is_no_traceback(
    state, closing, words, code, err
) -> None:
    line = f'exec "$0" -m node --state "$1" {words} {closing}'
    ran = subprocess.run(
        ["/bin/sh", "-c", line, sys.executable, str(state)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ran.returncode == code
    assert ran.stderr.startswith(err)
    assert ran.stderr.count("\n") == bool(err)


def test_a_socket_does_not_become_the_standard_output_that_was_closed() -> None:
    program = (
        "import os, sys; from node.cli.app import main; main(['--version'])\n"
        "sys.stderr.write(str(os.open('/', os.O_RDONLY) > 2))"
    )
    ran = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ran.stderr == "True"


def test_ctrl_c_is_quiet(state, daemon) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "node", "--state", str(state), "get", "pods", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("NAME")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == ""


def test_help_comes_at_once() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shell("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor, whoever else wants it: 0.1 s usually; this only catches a blunder.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


def test_the_module_and_the_script_are_the_same_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"muslin": "node.cli.app:main"}
    assert shell("get", "cows").returncode == 2


def test_the_overview_says_all_of_every_verb(muslin) -> None:
    for group in ("authority", "cert", "token", "pod", "lab", "ipam", "bench", "sim"):
        shown = muslin(group, "--help").out
        assert "..." not in shown.partition("Commands:")[2].partition("Example")[0], shown
