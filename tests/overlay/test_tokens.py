"""Tests of overlay.tokens."""

from __future__ import annotations

import random

import msgpack
import pytest

from overlay.errors import RefusedError, WireError
from overlay.tokens import MAX_TOKENS, REMEMBERED_AFTER, MintedToken, TokenBook
from overlay.types import Endpoint
from overlay.wire.token import JoinToken
from tests.support.clusters import WALL, make_cluster, make_identity, signing_key, static_key

CLUSTER = make_cluster()


def mint(book: TokenBook, ttl: float = 3600.0, wall: float = WALL, seed: int = 1) -> JoinToken:
    return book.mint(
        ttl,
        member=make_identity(0, CLUSTER),
        pinned=CLUSTER.authority_fingerprint,
        endpoints=(Endpoint("192.0.2.1", 6875),),
        entropy=random.Random(seed).randbytes,
        wall=wall,
    )


def test_a_token_carries_what_the_joiner_needs() -> None:
    book = TokenBook()
    token = mint(book, ttl=60.0)
    assert token.authority_fingerprint == CLUSTER.authority_fingerprint
    assert (token.member, token.static) == (signing_key(0).public, static_key(0).public)
    assert token.expires == WALL + 60
    assert book.secret(token.id, WALL) == token.secret


def test_a_token_is_remembered_for_a_day_after_its_expiry() -> None:
    book = TokenBook()
    token = mint(book, ttl=60.0)
    assert book.secret(token.id, WALL + 60 + REMEMBERED_AFTER) == token.secret
    assert book.secret(token.id, WALL + 61 + REMEMBERED_AFTER) is None
    assert book.get(token.id) is None


def test_the_book_is_bounded() -> None:
    tokens = [MintedToken(n.to_bytes(16, "big"), bytes(32), WALL, WALL) for n in range(MAX_TOKENS)]
    book = TokenBook(tokens)
    with pytest.raises(RefusedError) as caught:
        mint(book)
    assert caught.value.code == "too-many-tokens"
    assert mint(book, wall=WALL + REMEMBERED_AFTER + 1)


def test_a_token_for_ever_lasts_as_long_as_calendars_do() -> None:
    book = TokenBook()
    token = mint(book, ttl=float("inf"))
    assert JoinToken.parse(str(token)) == token
    assert TokenBook.decode(book.encode()).get(token.id) is not None


def test_a_secret_is_not_shown_when_printed() -> None:
    assert "secret" not in repr(MintedToken(bytes(16), b"secret" * 5, 0, 0))


@pytest.mark.parametrize(
    "stored",
    [
        b"\xc1",
        msgpack.packb([9, []]),
        msgpack.packb([1, [[bytes(15), bytes(32), 0, 0, b"", b"", False]]]),
    ],
)
def test_a_damaged_book_is_refused(stored: bytes) -> None:
    with pytest.raises(WireError):
        TokenBook.decode(stored)


def test_a_book_with_a_certificate_that_is_none_is_refused() -> None:
    stored = msgpack.packb([1, [[bytes(16), bytes(32), 0, 0, bytes(32), b"x", False]]])
    with pytest.raises(WireError):
        TokenBook.decode(stored)


# -- listing and revoking ----------------------------------------------------------------------


def admit(book: TokenBook, token: bytes, number: int = 2) -> None:
    identity = make_identity(number, CLUSTER)
    book.use(token, identity.node, identity.certificate.encode())


def test_each_token_has_one_state() -> None:
    book = TokenBook()
    tokens = [mint(book, seed=seed, wall=WALL + seed).id for seed in (1, 2, 3)]
    admit(book, tokens[1])
    book.revoke(tokens[2].hex(), WALL)
    views = book.views(WALL + 10)
    assert [view.id for view in views] == tokens, "the oldest is first"
    assert [str(view.state) for view in views] == ["unused", "used", "revoked"]
    assert [view.node for view in views] == ["", make_identity(2, CLUSTER).name, ""]
    assert (views[0].made, views[0].expires) == (WALL + 1, WALL + 3601)
    late = [str(view.state) for view in book.views(WALL + 5000)]
    assert late == ["expired", "used", "revoked"]


def test_revoking_survives_the_disk_and_can_be_repeated() -> None:
    book = TokenBook()
    token = mint(book).id
    admit(book, token)
    assert book.revoke(token.hex().upper(), WALL).revoked is False
    book = TokenBook.decode(book.encode())
    assert book.revoke(token.hex(), WALL).revoked is True
    minted = book.get(token)
    assert minted is not None
    assert minted.revoked
    assert minted.used_by == make_identity(2, CLUSTER).node


def test_the_first_digits_are_enough_if_they_are_of_one_token() -> None:
    tokens = [MintedToken(bytes([n, 1] + [0] * 14), bytes(32), WALL, WALL) for n in (0x10, 0x1F)]
    book = TokenBook(tokens)
    for text, code in (("1", "token-ambiguous"), ("", "no-such-token"), ("2", "no-such-token")):
        with pytest.raises(RefusedError) as caught:
            book.revoke(text, WALL)
        assert caught.value.code == code
    assert book.revoke("1f", WALL) == tokens[1]
    assert [str(view.state) for view in book.views(WALL - 1)] == ["unused", "revoked"]


def test_a_forgotten_token_is_neither_listed_nor_revoked() -> None:
    book = TokenBook()
    token = mint(book, ttl=60.0).id
    late = WALL + 61 + REMEMBERED_AFTER
    assert book.views(late) == ()
    with pytest.raises(RefusedError):
        book.revoke(token.hex(), late)
