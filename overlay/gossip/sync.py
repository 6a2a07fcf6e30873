"""Anti-entropy: the messages that make two stores equal, in as few bytes as they differ by.

    A                                             B
    | -- Summary(root, count) ------------------> |  roots equal: the end, one message
    | <----------------- Digest(all B has) ------ |
    | -- Delta(what B lacks) -------------------> |
    | -- Want(what A lacks) --------------------> |
    | <-------------------------- Delta(those) -- |

Any of these may be lost; the next round starts over from what is then different. No state is kept
between messages, and every answer is bounded, so a member cannot make another work for nothing for
long.

A store too large for one complete digest is listed in several offers (`complete=False`). Those
bring the asker what *it* lacks, and what it holds newer of the listed items goes back; items the
lister has never heard of reach it when it is itself the one that asks.

References:
    Demers et al. 1987, "Epidemic algorithms for replicated database maintenance", sections 1.3
    and 1.4: push-pull with checksums; pull is what converges when few nodes are still behind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeVar

from overlay.gossip.store import Store
from overlay.wire.items import Item
from overlay.wire.messages import Delta, Digest, DigestEntry, Message, Summary, Want

# -- specification ---------------------------------------------------------------------------------

CHUNK: Final = 32_000
"""Bytes of items, entries or keys in one message. Half a burst: a lost segment costs the message.
Only a single larger item travels in a larger one. No message has more than 1,700 parts then, well
below what decoders accept."""

# -- implementation --------------------------------------------------------------------------------

MESSAGES_PER_TURN: Final = 16
"""Messages of one kind in answer to one: half a megabyte. The rest waits for the next round, so
that a small request cannot pull an unbounded answer."""

_ITEM_OVERHEAD: Final = 18
"""msgpack headers around an item or entry: array 1, key 2, version 9, body 5; rounded up."""

_Part = TypeVar("_Part", bytes, DigestEntry, Item)

NOTHING: Final[frozenset[bytes]] = frozenset()


def summary_of(store: Store) -> Summary:
    """The opening question: do we hold the same?"""
    return Summary(store.root(), len(store))


def answer_summary(
    store: Store, message: Summary, hidden: Collection[bytes] = NOTHING
) -> list[Message]:
    """A complete digest, or offers of everything if it is large; nothing if the roots are equal.

    Args:
        store: what this node has.
        message: what the other node said of its store.
        hidden: keys not to be spoken of (see `Gossip.mute`).
    """
    if message.root == store.root():
        return []
    entries = [entry for entry in store.digest() if entry.key not in hidden]
    return list(digests_of(entries, complete=True))


def answer_digest(
    store: Store, message: Digest, hidden: Collection[bytes] = NOTHING
) -> list[Message]:
    """What the sender lacks, and a question for what this node lacks.

    An offer is always answered with a `Want`, if need be an empty one: that acknowledges it.
    """
    newer = store.newer_than(message.entries, complete=message.complete)
    answers: list[Message] = list(deltas_of([item for item in newer if item.key not in hidden]))
    lacking = store.lacking(message.entries)
    if lacking or not message.complete:
        answers += _wants_of(lacking) or [Want(())]
    return answers


def answer_want(store: Store, message: Want, hidden: Collection[bytes] = NOTHING) -> list[Message]:
    """The wanted items that are held."""
    keys = dict.fromkeys(key for key in message.keys if key not in hidden)
    items = (store.get(key) for key in keys)
    return list(deltas_of([item for item in items if item is not None]))


def deltas_of(items: Iterable[Item]) -> list[Delta]:
    """`items` in as many messages as they need, up to `MESSAGES_PER_TURN`."""
    return [Delta(chunk) for chunk in _chunks(items, _item_size)[:MESSAGES_PER_TURN]]


def digests_of(entries: Iterable[DigestEntry], *, complete: bool) -> list[Digest]:
    """`entries` in as many messages as they need; several are always offers.

    Args:
        entries: what to list.
        complete: they are everything the sender has.
    """
    chunks = _chunks(entries, _entry_size) or [()]
    return [Digest(chunk, complete and len(chunks) == 1) for chunk in chunks]


def _wants_of(keys: Iterable[bytes]) -> list[Want]:
    return [Want(chunk) for chunk in _chunks(keys, len)[:MESSAGES_PER_TURN]]


def _chunks(parts: Iterable[_Part], size_of: Callable[[_Part], int]) -> list[tuple[_Part, ...]]:
    """Runs of `parts`, in order, none empty, each within `CHUNK` bytes unless it is one part."""
    chunks = []
    chunk: list[_Part] = []
    used = 0
    for part in parts:
        size = size_of(part) + _ITEM_OVERHEAD
        if chunk and used + size > CHUNK:
            chunks.append(tuple(chunk))
            chunk, used = [], 0
        chunk.append(part)
        used += size
    if chunk:
        chunks.append(tuple(chunk))
    return chunks


def _item_size(item: Item) -> int:
    return len(item.key) + len(item.body)


def _entry_size(entry: DigestEntry) -> int:
    return len(entry.key) + len(entry.fingerprint)
