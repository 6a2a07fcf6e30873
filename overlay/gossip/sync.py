"""Anti-entropy: the messages that make two stores equal, in about as few bytes as they differ by.

    A                                                  B
    | -- Summary(root, count, claims' root) ---------> |  roots equal: the end, one message
    | <------------------ Buckets(256 roots) --------- |
    | -- Ids(of the buckets that differ) ------------> |
    | <------------------ Want(what B lacks) --------- |
    | <------------------ Have(what A lacks) --------- |
    | -- Delta(what B wanted), Want(what A lacks) ---> |
    | <------------------ Delta(those) --------------- |

Any of these may be lost; the next round starts over from what is then different. Whoever answers
keeps no state, and every answer is bounded, so a member cannot make another work for nothing for
long. With fewer than 256 items all ids are shorter than all roots, and take their place in the
answer to the Summary. Stores of 10,000 items that differ by one exchange 2 kB of roots and the 40
ids of a bucket.

References:
    Demers et al. 1987, "Epidemic algorithms for replicated database maintenance", sections 1.3
    and 1.4: push-pull with checksums; pull is what converges when few nodes are still behind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from overlay.gossip.store import Store
from overlay.wire.items import ID_SIZE, Item
from overlay.wire.messages import BUCKETS, ROOT_SIZE, Buckets, Delta, Ids

# -- specification ---------------------------------------------------------------------------------

CHUNK: Final = 32_000
"""Bytes of items or ids in one message, at most: half a burst. Only a single larger item travels in
a larger one. No message has more than 1,700 items then, well below what decoders accept."""

SMALL_CHUNK: Final = 4_400
"""Bytes of items in one message where few messages are enough: four datagrams. A lost segment costs
the whole message, so over a bad path large ones hardly arrive at all; and a message costs its
receiver as much work as several of its items."""

# -- implementation --------------------------------------------------------------------------------

MESSAGES_PER_TURN: Final = 16
"""Messages of one kind in answer to one: half a megabyte. The rest waits for the next round, so
that a small request cannot pull an unbounded answer."""

_ITEM_OVERHEAD: Final = 18
"""msgpack headers around an item: array 1, key 2, version 9, body 5; rounded up."""

NOTHING: Final[frozenset[bytes]] = frozenset()


def buckets_of(store: Store) -> Buckets:
    """The roots of all buckets."""
    return Buckets(b"".join(root.to_bytes(ROOT_SIZE, "big") for root in store.bucket_roots()))


def details_of(store: Store, hidden: Collection[bytes] = NOTHING) -> Buckets | Ids:
    """The answer to a summary with another root: all ids if those are shorter, or all roots."""
    if len(store) < BUCKETS:
        return Ids(b"", b"".join(_visible(store, range(BUCKETS), hidden)))
    return buckets_of(store)


def _visible(store: Store, buckets: Iterable[int], hidden: Collection[bytes]) -> Iterator[bytes]:
    for bucket in buckets:
        if hidden:
            yield from (one for one in store.ids_in(bucket) if store.key_of(one) not in hidden)
        else:
            yield from store.ids_in(bucket)


def differing(store: Store, message: Buckets) -> list[int]:
    """The buckets of which whoever sent `message` holds something else."""
    ours = buckets_of(store).roots
    theirs = message.roots
    if ours == theirs:
        return []
    spans = range(0, BUCKETS * ROOT_SIZE, ROOT_SIZE)
    return [
        number
        for number, at in enumerate(spans)
        if ours[at : at + ROOT_SIZE] != theirs[at : at + ROOT_SIZE]
    ]


def ids_of(store: Store, buckets: Iterable[int], hidden: Collection[bytes] = NOTHING) -> Ids | None:
    """What is held in some buckets, as many of these as fit a message; None if there are none.

    Args:
        store: what this node has.
        buckets: those that differ, in the order of their importance.
        hidden: keys not to be spoken of (see `Gossip.mute`).
    """
    listed: list[int] = []
    ids: list[bytes] = []
    for bucket in buckets:
        here = list(_visible(store, [bucket], hidden))
        if listed and (len(ids) + len(here)) * ID_SIZE > CHUNK:
            continue
        listed.append(bucket)
        ids += here[: CHUNK // ID_SIZE]
    return Ids(bytes(listed), b"".join(ids)) if listed else None


def compare(
    store: Store, message: Ids, hidden: Collection[bytes] = NOTHING
) -> tuple[list[bytes], list[bytes]]:
    """Ids that whoever sent `message` has and this store lacks, and the other way round."""
    theirs = dict.fromkeys(ids_in(message.ids))
    lacking = [one for one in theirs if store.lacks(one)]
    buckets = dict.fromkeys(message.buckets) if message.buckets else range(BUCKETS)
    held = _visible(store, buckets, hidden)
    return lacking, [one for one in held if one not in theirs]


def ids_in(blob: bytes) -> list[bytes]:
    """The ids in a blob of them."""
    return [blob[at : at + ID_SIZE] for at in range(0, len(blob), ID_SIZE)]


def blobs_of(ids: Iterable[bytes]) -> list[bytes]:
    """`ids` as blobs, each for one message."""
    blob = b"".join(ids)
    step = CHUNK // ID_SIZE * ID_SIZE
    return [blob[at : at + step] for at in range(0, len(blob), step)]


def wanted_items(store: Store, blob: bytes, hidden: Collection[bytes] = NOTHING) -> list[Item]:
    """Those of the wanted items that are held, each once."""
    items = (store.by_id(one) for one in dict.fromkeys(ids_in(blob)))
    return [item for item in items if item is not None and item.key not in hidden]


def deltas_of(items: Iterable[Item]) -> list[Delta]:
    """`items` in up to `MESSAGES_PER_TURN` messages, each as small as that allows."""
    sized = [(item, len(item.key) + len(item.body) + _ITEM_OVERHEAD) for item in items]
    fair = sum(size for _, size in sized) // (MESSAGES_PER_TURN - 1)
    limit = min(max(fair, SMALL_CHUNK), CHUNK)
    deltas = []
    chunk: list[Item] = []
    used = 0
    for item, size in sized:
        if chunk and used + size > limit:
            deltas.append(Delta(tuple(chunk)))
            chunk, used = [], 0
        chunk.append(item)
        used += size
    if chunk:
        deltas.append(Delta(tuple(chunk)))
    return deltas[:MESSAGES_PER_TURN]
