"""`muslin authority`: the passphrase of the authority's key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from node import sealed
from node.authority_keys import read_keys
from node.identity import write_node
from node.state import AUTHORITY, StateFolder
from overlay.views import Problem
from tests.node.cli.test_membership import FakeNetlink
from tests.node.control.test_authority import VIEWS
from tests.node.test_identity import make_node
from tests.support.control import served

LOCKED = Problem("authority-locked", "it is", "why", "fix")


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    derive = sealed._derive
    monkeypatch.setattr(sealed, "_derive", lambda words, salt, *_: derive(words, salt, 1, 1, 1))


@pytest.fixture
def said(tmp_path: Path):
    """A file with a passphrase, by its name."""

    def write(words: str) -> str:
        file = tmp_path / f"file-{words}"
        file.write_text(f"{words}\n")
        file.chmod(0o600)
        return str(file)

    return write


@pytest.fixture
def folder(state: Path) -> StateFolder:
    made = StateFolder(state)
    made.create()
    write_node(made, make_node(), "words")
    return made


def is_locked(folder: StateFolder, words: str | None = None) -> bool:
    return read_keys(folder, words)[0].is_locked


def test_init_keeps_the_key_under_a_passphrase(muslin, state, said, monkeypatch) -> None:
    monkeypatch.setattr("node.kernel.netlink.Netlink", FakeNetlink)
    assert muslin("init", "--name", "a", "--passphrase-file", said("words")).code == 0
    folder = StateFolder(state)
    assert is_locked(folder)
    assert not is_locked(folder, "words")
    for path in state.iterdir():
        assert b"words" not in path.read_bytes()


def test_protect_sets_changes_and_removes_it_without_a_daemon(muslin, folder, said) -> None:
    protect = ("authority", "protect")
    ran = muslin(*protect, "--passphrase-file", said("b"), "--old-passphrase-file", said("words"))
    assert ran.code == 0, ran.err
    assert "is under that passphrase now" in ran.out
    assert not is_locked(folder, "b")
    ran = muslin(*protect, "--remove", "--old-passphrase-file", said("b"))
    assert ran.out == "the authority's key has no passphrase now\n"
    assert not is_locked(folder)
    assert muslin(*protect, "--passphrase-file", said("c")).code == 0
    assert is_locked(folder)


def test_a_wrong_or_missing_passphrase_is_one_line(muslin, folder, said) -> None:
    protect = ("authority", "protect", "--passphrase-file", said("b"))
    ran = muslin(*protect, "--old-passphrase-file", said("hunter2"))
    assert ran.err == (
        "muslin: cannot protect the authority's key: the passphrase is wrong: try again\n"
    )
    ran = muslin(*protect)
    assert ran.err == (
        "muslin: cannot protect the authority's key: no terminal to ask for a passphrase: "
        "use --passphrase-file FILE, or - to read it from standard input\n"
    )
    assert muslin(*protect, "--remove").code == 2
    assert not is_locked(folder, "words")


def test_a_daemon_is_told_and_says_whether_it_was_locked(muslin, folder, state, said) -> None:
    unlock = ("authority", "unlock", "--passphrase-file", said("words"))
    ran = muslin(*unlock)
    assert "no daemon is running" in ran.err
    with served(state) as daemon:
        daemon.engine.shot = replace(daemon.engine.shot, notices=(LOCKED,))
        assert muslin(*unlock).out == "the authority's key is unlocked\n"
        assert muslin(*unlock).out == "the authority's key is unlocked (it was not locked)\n"
        ran = muslin("authority", "unlock", "--passphrase-file", said("hunter2"))
        assert ran.err == (
            "muslin: cannot unlock the authority's key: the passphrase is wrong: try again\n"
        )
        words = ("--passphrase-file", said("d"), "--old-passphrase-file", said("words"))
        assert muslin("authority", "protect", *words).code == 0
    assert not is_locked(folder, "d")


def test_where_no_key_is_nothing_is_protected(muslin, daemon, said) -> None:
    ran = muslin("authority", "protect", "--passphrase-file", said("b"))
    assert ran.err == (
        "muslin: cannot protect the authority's key: this node holds no authority's key: "
        "run it where the key is, at first where muslin init ran\n"
    )


def test_a_terminal_is_asked_without_an_echo(muslin, folder, monkeypatch) -> None:
    asked: list[tuple[str, bool, bool]] = []

    def prompt(text: str, *, hide_input: bool, confirmation_prompt: bool, **_: object) -> str:
        asked.append((text, hide_input, confirmation_prompt))
        return "words" if text.startswith("Present") else "new"

    monkeypatch.setattr("click.prompt", prompt)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert muslin("authority", "protect").code == 0
    assert asked == [("Present passphrase", True, False), ("New passphrase", True, True)]
    assert not is_locked(folder, "new")


def test_a_status_shows_the_notice_and_is_well(muslin, state) -> None:
    state.mkdir()
    with served(state) as daemon:
        shot = replace(daemon.engine.shot, notices=(LOCKED,), problems=())
        daemon.engine.shot = shot
        ran = muslin("status")
    assert ran.code == 0
    assert "\nNOTICE " in ran.out
    assert "authority-locked" in ran.out


# -- the list ------------------------------------------------------------------------------------


@pytest.fixture
def authorities(daemon) -> None:
    daemon.engine.authority_views = VIEWS


def test_the_table_shows_who_signs_and_for_whom(muslin, authorities) -> None:
    head, *rows = muslin("authority", "list").out.splitlines()
    assert head.split() == ["KEY", "STATE", "HERE", "MEMBERS", "AGE"]
    assert [row.split()[:4] for row in rows] == [
        ["a0a0a0a0", "in-use", "yes", "2"],
        ["a1a1a1a1", "trusted", "no", "0"],
        ["a2a2a2a2", "removed", "no", "0"],
    ]
    assert "a1" * 32 in muslin("authority", "list", "-o", "wide").out
    names = muslin("authority", "list", "-o", "name").out.split()
    assert names == [view.key.hex() for view in VIEWS]


def test_a_rotation_is_three_verbs(muslin, daemon, authorities, state) -> None:
    ran = muslin("authority", "install", "5b" * 32)
    assert ran.out == f"the cluster trusts authority {'5b' * 32}\n"
    assert ran.err == f"next: muslin --state {state} authority use 5b5b5b5b\n"
    ran = muslin("authority", "use", "a1")
    assert ran.out == "authority a1a1a1a1 signs certificates from now on\n"
    assert ran.err == f"next: muslin --state {state} authority list\n"
    ran = muslin("authority", "remove", "a1")
    assert ran.err == (
        "muslin: cannot remove authority a1: node2 would be cut off: wait, or use --force\n"
    )
    ran = muslin("authority", "remove", "a1", "--force")
    assert ran.out == "authority a1a1a1a1 is trusted no more\n"


@pytest.mark.parametrize("verb", ["install", "use", "remove"])
def test_an_empty_argument_is_neither_a_new_key_nor_a_name(
    muslin, daemon, authorities, state, verb
) -> None:
    for words in ("", " "):
        ran = muslin("authority", verb, words)
        assert (ran.code, ran.out, "it is empty" in ran.err) == (2, "", True)
    assert daemon.engine.calls == []
    assert not StateFolder(state).has(AUTHORITY)


def test_a_new_key_on_a_member_is_printed_to_be_installed_elsewhere(muslin, daemon, state) -> None:
    daemon.engine.no_authority = True
    ran = muslin("authority", "install", "--new")
    (made,) = read_keys(StateFolder(state))
    assert ran.out == f"made the key of authority {made.public.hex()}; nobody trusts it yet\n"
    assert f"muslin authority install {made.public.hex()}" in ran.err
    assert muslin("authority", "install", "5b", "--new").code == 2


def test_every_verb_explains_itself_with_an_example(muslin) -> None:
    for word in ("", "list", "install", "use", "remove", "unlock", "protect"):
        ran = muslin("authority", *word.split(), "--help")
        assert (ran.code, "Example" in ran.out) == (0, True)
