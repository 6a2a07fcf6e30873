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
        cluster=CLUSTER,
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
    tokens = [MintedToken(n.to_bytes(16, "big"), bytes(32), WALL) for n in range(MAX_TOKENS)]
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
    assert "secret" not in repr(MintedToken(bytes(16), b"secret" * 5, 0))


@pytest.mark.parametrize(
    "stored",
    [b"\xc1", msgpack.packb([9, []]), msgpack.packb([1, [[bytes(15), bytes(32), 0, b"", b""]]])],
)
def test_a_damaged_book_is_refused(stored: bytes) -> None:
    with pytest.raises(WireError):
        TokenBook.decode(stored)
