"""The authority's key through the control socket."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from node import sealed
from node.authority_keys import protect, read_keys
from node.control.authority import Authority
from node.control.schema import ControlError
from node.errors import NodeError
from node.identity import write_node
from node.sealed import WrongPassphraseError
from node.state import AUTHORITY, StateFolder
from overlay.errors import RefusedError
from overlay.views import AuthorityView, Problem
from overlay.wire.cluster import fingerprint_of
from tests.node.test_identity import make_node
from tests.support.daemon import FakeDaemon

LOCKED = Problem("authority-locked", "it is", "why", "fix")


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    derive = sealed._derive
    monkeypatch.setattr(sealed, "_derive", lambda words, salt, *_: derive(words, salt, 1, 1, 1))


@pytest.fixture
def daemon(tmp_path) -> FakeDaemon:
    made = FakeDaemon()
    made.folder = StateFolder(tmp_path)
    write_node(made.folder, make_node(), "words")
    made.engine.shot = replace(made.engine.shot, notices=(LOCKED,))
    return made


def ask(daemon: FakeDaemon, method: str, **params: object) -> object:
    return asyncio.run(Authority(daemon).methods[method](params))


def test_the_passphrase_gives_the_engine_its_key(daemon) -> None:
    (key,) = read_keys(daemon.folder, "words")
    assert ask(daemon, "authority.unlock", passphrase="words") == {"was_locked": True}
    assert daemon.engine.calls == [("hold_authority_key", key.public)]
    assert ask(daemon, "authority.unlock", passphrase="words") == {"was_locked": False}
    assert len(daemon.engine.calls) == 1


def test_a_wrong_passphrase_changes_nothing_and_is_in_no_error(daemon) -> None:
    with pytest.raises(WrongPassphraseError) as caught:
        ask(daemon, "authority.unlock", passphrase="hunter2")
    assert "hunter2" not in repr(caught.value)
    with pytest.raises(ControlError):
        ask(daemon, "authority.unlock")
    assert daemon.engine.calls == []


def test_protecting_writes_the_file_and_leaves_the_engine_alone(daemon) -> None:
    with pytest.raises(NodeError):
        ask(daemon, "authority.protect", old=None, new="others")
    assert ask(daemon, "authority.protect", old="words", new="others") == {"protected": True}
    assert not read_keys(daemon.folder, "others")[0].is_locked
    assert ask(daemon, "authority.protect", old="others", new=None) == {"protected": False}
    assert not read_keys(daemon.folder)[0].is_locked
    assert daemon.engine.calls == []


def test_without_a_key_there_is_nothing_to_unlock(daemon, tmp_path) -> None:
    daemon.folder = StateFolder(tmp_path / "other")
    with pytest.raises(NodeError) as caught:
        ask(daemon, "authority.unlock", passphrase="words")
    assert caught.value.code == "not-authority"


# -- the list ------------------------------------------------------------------------------------

VIEWS = tuple(
    AuthorityView(bytes([0xA0 + number]) * 32, standing, 1_700_000_000, held, members)
    for number, (standing, held, members) in enumerate(
        [("in-use", True, ("node1", "node2")), ("trusted", False, ()), ("removed", False, ())]
    )
)


@pytest.fixture
def authorities(daemon) -> FakeDaemon:
    daemon.engine.authority_views = VIEWS
    return daemon


def test_authorities_are_listed_with_what_people_ask(authorities) -> None:
    first, *_ = listed = ask(authorities, "authority.list")
    assert [one["state"] for one in listed] == ["in-use", "trusted", "removed"]
    assert first == {
        "key": "a0" * 32,
        "fingerprint": fingerprint_of(VIEWS[0].key).hex(),
        "state": "in-use",
        "here": True,
        "members": ["node1", "node2"],
        "since": "2023-11-14T22:13:20.000Z",
    }


def test_the_first_digits_name_an_authority(authorities) -> None:
    ask(authorities, "authority.use", key="A1a1")
    ask(authorities, "authority.remove", key="a1", force=True)
    assert authorities.engine.calls == [
        ("use_authority", VIEWS[1].key),
        ("remove_authority", VIEWS[1].key, True),
    ]
    for key, code in (("a", "authority-ambiguous"), ("ff", "no-such-authority")):
        with pytest.raises(ControlError) as caught:
            ask(authorities, "authority.use", key=key)
        assert caught.value.code == code
    with pytest.raises(RefusedError):
        ask(authorities, "authority.remove", key="a1")


def test_a_key_from_elsewhere_is_installed_by_its_whole_public_half(authorities) -> None:
    answer = ask(authorities, "authority.install", key="5b" * 32)
    assert answer == {"key": "5b" * 32, "made": False, "installed": True}
    assert authorities.engine.calls == [("install_authority", b"\x5b" * 32)]
    with pytest.raises(ControlError):
        ask(authorities, "authority.install", key="xyz")


def test_a_new_key_is_stored_under_the_passphrase_before_it_is_used(authorities) -> None:
    with pytest.raises(NodeError) as caught:
        ask(authorities, "authority.install")
    assert caught.value.code == "authority-locked"
    assert authorities.engine.calls == []
    answer = ask(authorities, "authority.install", passphrase="words")
    kept = read_keys(authorities.folder, "words")
    assert len(kept) == 2
    assert answer == {"key": kept[1].public.hex(), "made": True, "installed": True}
    assert [call[0] for call in authorities.engine.calls] == [
        "hold_authority_key",
        "install_authority",
    ]


def test_keys_that_are_made_and_protected_at_once_are_all_kept(authorities) -> None:
    async def at_once() -> list[object]:
        methods = Authority(authorities).methods
        return await asyncio.gather(
            methods["authority.install"]({"passphrase": "words"}),
            methods["authority.protect"]({"old": "words", "new": "words"}),
            methods["authority.install"]({"passphrase": "words"}),
        )

    before = len(read_keys(authorities.folder, "words"))
    made = {answer["key"] for answer in asyncio.run(at_once()) if "key" in answer}
    kept = read_keys(authorities.folder, "words")
    assert made <= {key.public.hex() for key in kept}
    assert len(kept) == before + 2


def test_the_key_of_a_removed_authority_makes_room(authorities) -> None:
    ask(authorities, "authority.install", passphrase="words")
    old, new = read_keys(authorities.folder, "words")
    gone = AuthorityView(old.public, "removed", 1_700_000_000, held=True, members=())
    authorities.engine.authority_views = (*VIEWS, gone)
    ask(authorities, "authority.install", passphrase="words")
    kept = [key.public for key in read_keys(authorities.folder, "words")]
    assert kept[0] == new.public
    assert old.public not in kept
    assert len(kept) == 2


def test_on_a_node_without_authority_a_key_is_made_and_not_installed(authorities, tmp_path) -> None:
    authorities.folder = StateFolder(tmp_path / "member")
    authorities.folder.create()
    authorities.engine.no_authority = True
    answer = ask(authorities, "authority.install")
    (made,) = read_keys(authorities.folder)
    assert answer == {"key": made.public.hex(), "made": True, "installed": False}


def test_a_passphrase_for_keys_without_one_is_refused_before_a_key_is_made(authorities) -> None:
    protect(authorities.folder, "words", None)
    before = authorities.folder.read(AUTHORITY)
    with pytest.raises(NodeError) as caught:
        ask(authorities, "authority.install", passphrase="words")
    assert caught.value.code == "not-protected"
    assert authorities.folder.read(AUTHORITY) == before
    assert authorities.engine.calls == []
