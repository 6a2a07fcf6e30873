"""`muslin token` and its verbs against a pretended daemon."""

from __future__ import annotations

import io
import json
from ipaddress import ip_network

import pytest

from overlay.types import Endpoint, NodeId
from overlay.views import TokenState, TokenView
from overlay.wire.token import JoinToken

ROUTES = (ip_network("192.168.7.0/24"),)
VIEWS = tuple(
    TokenView(bytes([0xA0 + number]) * 16, state, 1_700_003_600, 1_700_000_000, node, ROUTES)
    for number, (state, node) in enumerate(
        [
            (TokenState.UNUSED, ""),
            (TokenState.USED, "node2"),
            (TokenState.EXPIRED, ""),
            (TokenState.REVOKED, ""),
        ]
    )
)


@pytest.fixture
def tokens(daemon) -> None:
    daemon.engine.token_views = VIEWS


def test_a_token_is_all_that_is_on_stdout(muslin, daemon) -> None:
    ran = muslin("token", "--ttl", "15m")
    assert (ran.code, ran.out, ran.err) == (0, "muslin1-900\n", "")


@pytest.mark.parametrize("ttl", ["0", "31d", "9" * 400])
def test_a_time_that_is_too_short_or_too_long_is_wrong_usage(muslin, daemon, ttl) -> None:
    ran = muslin("token", "--ttl", ttl)
    assert (ran.code, "--ttl" in ran.err, "1 second to 30 days" in ran.err) == (2, True, True)
    assert daemon.engine.calls == []


def test_networks_that_the_node_may_advertise_go_with_the_token(muslin, daemon) -> None:
    assert muslin("token", "--route", "192.168.7.0/24", "--route", "2001:db8::/48").code == 0
    assert daemon.engine.calls[-1] == ("mint_token", 3600.0, "192.168.7.0/24", "2001:db8::/48")
    wrong = muslin("token", "--route", "192.168.7.1/24")
    assert (wrong.code, "has host bits set" in wrong.err) == (2, True)


def test_the_options_of_a_new_token_are_not_for_the_list(muslin, daemon) -> None:
    for flags in (("--ttl", "1m"), ("--route", "192.168.7.0/24")):
        assert f"{flags[0]} is not for token list" in muslin("token", *flags, "list").err


def test_the_list_has_a_line_for_each(muslin, tokens) -> None:
    head, *rows = muslin("token", "list").out.splitlines()
    assert head.split() == ["ID", "STATE", "EXPIRES", "NODE", "AGE"]
    cells = [row.split()[:4] for row in rows]
    assert cells[1] == ["a1a1a1a1", "used", "2023-11-14T23:13:20.000Z", "node2"]
    assert [(row[1], row[3]) for row in cells] == [
        ("unused", "-"),
        ("used", "node2"),
        ("expired", "-"),
        ("revoked", "-"),
    ]


def test_programs_get_whole_ids_and_moments(muslin, tokens) -> None:
    shown = json.loads(muslin("token", "list", "-o", "json").out)
    assert shown[1] == {
        "id": "a1" * 16,
        "state": "used",
        "expires": "2023-11-14T23:13:20.000Z",
        "node": "node2",
        "made": "2023-11-14T22:13:20.000Z",
        "routes": ["192.168.7.0/24"],
    }
    assert shown[0]["node"] is None
    names = muslin("token", "list", "-o", "name").out.split()
    assert names == [view.id.hex() for view in VIEWS]
    assert "a2" * 16 in muslin("token", "list", "-o", "wide").out
    assert "state: revoked" in muslin("token", "list", "-o", "yaml").out


def test_without_tokens_it_says_so(muslin, daemon) -> None:
    assert muslin("token", "list").out == "no tokens\n"
    assert muslin("token", "list", "-o", "json").out == "[]\n"


@pytest.mark.parametrize(
    ("id", "says"),
    [
        ("a0", "revoked token a0a0a0a0: it admits nobody any more\n"),
        (
            "a1a1",
            (
                "revoked token a1a1a1a1, but node2 had used it before and stays a member: "
                "muslin remove node2 ends that\n"
            ),
        ),
        ("a2" * 16, "revoked token a2a2a2a2; it had expired before\n"),
        ("a3", "token a3a3a3a3 was revoked before\n"),
    ],
)
def test_revoke_says_what_it_changes(muslin, daemon, tokens, id, says) -> None:  # noqa: A002
    ran = muslin("token", "revoke", id)
    assert (ran.code, ran.out, ran.err) == (0, says, "")
    assert daemon.kept == [b"revoked"]


def test_a_whole_token_is_found_by_its_id_and_goes_no_further(muslin, daemon, monkeypatch) -> None:
    daemon.engine.token_views = VIEWS
    leaked = JoinToken(
        id=VIEWS[0].id,
        secret=b"s" * 32,
        static=bytes(32),
        member=NodeId(bytes(32)),
        authority_fingerprint=bytes(16),
        endpoints=(Endpoint("192.0.2.1", 6875),),
        expires=0,
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{leaked}\n"))
    assert muslin("token", "revoke", "-").code == 0
    assert muslin("token", "revoke", str(leaked)).code == 0
    assert daemon.engine.calls == [("revoke_token", "a0" * 16)] * 2
    ran = muslin("token", "revoke", str(leaked)[:-3])
    assert ran.err.startswith("muslin: cannot revoke the token: the join token is damaged")
    assert str(leaked)[20:40] not in ran.err


def test_an_id_that_nobody_knows_is_one_line(muslin, tokens) -> None:
    ran = muslin("token", "revoke", "ff")
    assert ran.code == 1
    assert ran.err == ("muslin: cannot revoke the token: no token 'ff': see muslin token list\n")


def test_the_verbs_explain_themselves(muslin) -> None:
    for words in (("token",), ("token", "list"), ("token", "revoke")):
        assert "Examples:" in muslin(*words, "--help").out
    ran = muslin("token", "--ttl", "1h", "list")
    assert (ran.code, "--ttl is not for token list" in ran.err) == (2, True)
