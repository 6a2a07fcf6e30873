"""Who owns what of the cluster's range, as few rows as say it.

Blocks in use have a row each. Others are many, and neighbours mostly have one owner, so a run
of them becomes the least number of aligned prefixes:

    blocks   0      1  2  3  4  5  6  7      8 ...
    owner    a      a  a  a  a  b  b  b      a ...
             in use +- free -+  +--------------
    rows     0      1  2-3   4  5  6-7       8 ...

    in-use   routed to its owner
    free     owned, not routed, given to nodes that ask
    held     has passed through a removed node: nobody uses it until the authority takes it back
    removed  of a removed node, likewise
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from overlay.catalog.records import NodeRecord
from overlay.ipam.plan import BlockPlan
from overlay.ipam.titles import Titles
from overlay.types import BlockIndex, NodeId, Prefix, short_id
from overlay.views import BlockView

IN_USE: Final = "in-use"
FREE: Final = "free"
HELD: Final = "held"
REMOVED: Final = "removed"


class Run(NamedTuple):
    """Neighbouring blocks of one owner and one state, or one that is in use."""

    start: int
    stop: int
    owner: NodeId
    state: str = FREE


def block_views(
    plan: BlockPlan,
    titles: Titles,
    nodes: Mapping[NodeId, NodeRecord],
    genesis: NodeId,
    departed: Mapping[NodeId, NodeRecord | None],
) -> tuple[BlockView, ...]:
    """Every block of the cluster, in order, as few rows as possible.

    Args:
        plan: the cluster's blocks.
        titles: who owns them.
        nodes: the records, which say what is in use.
        genesis: the owner of blocks that never moved.
        departed: removed nodes, each with its last record where one is known.
    """
    used = blocks_used(nodes, titles)
    states = dict.fromkeys(used, IN_USE)
    for block in titles.passed_by(departed):
        states.setdefault(block, REMOVED if titles.owner(block) in departed else HELD)
    known = {node: record for node, record in departed.items() if record is not None}
    pods = used | blocks_used(known, titles)
    return tuple(
        _view(plan, {**known, **nodes}, part, pods.get(BlockIndex(part.start), 0))
        for run in runs(plan.blocks, titles, states, genesis)
        for part in aligned(run)
    )


def blocks_used(nodes: Mapping[NodeId, NodeRecord], titles: Titles) -> dict[BlockIndex, int]:
    """The blocks that are routed, each with the number of its pods."""
    used = {}
    for node, record in nodes.items():
        pods = Counter(pod.block for pod in record.pods)
        for block in record.blocks_in_use:
            if titles.owner(block) == node:
                used[block] = pods[block]
    return used


def runs(
    blocks: int, titles: Titles, states: Mapping[BlockIndex, str], genesis: NodeId
) -> Iterator[Run]:
    """All blocks as maximal runs, in order; `states` has those of blocks that are not free.

    Looks only at blocks that have moved or are in use, because there may be 65,536 in all.
    """
    special = {*titles.moved(), *states}
    run = Run(0, 0, genesis)
    for block in sorted(special):
        for following in (
            Run(run.stop, block, genesis),
            Run(block, block + 1, titles.owner(block), states.get(block, FREE)),
        ):
            if joined := _join(run, following):
                run = joined
            else:
                yield run
                run = following
    last = Run(run.stop, blocks, genesis)
    if joined := _join(run, last):
        yield joined
    else:
        yield from (run, last)


def _join(run: Run, following: Run) -> Run | None:
    """Both as one, where one is empty or they are alike."""
    if following.start == following.stop:
        return run
    if run.start == run.stop:
        return following
    if run.state == IN_USE or (run.state, run.owner) != (following.state, following.owner):
        return None
    return run._replace(stop=following.stop)


def aligned(run: Run) -> Iterator[Run]:
    """`run` as the fewest runs that are prefixes: a power of two long, starting at a multiple.

    >>> [(part.start, part.stop) for part in aligned(Run(1, 8, NodeId(bytes(32))))]
    [(1, 2), (2, 4), (4, 8)]
    """
    start = run.start
    if start + 1 == run.stop:
        yield run
        return
    while start < run.stop:
        size = 1 << ((run.stop - start).bit_length() - 1)
        if start:
            size = min(size, start & -start)
        yield run._replace(start=start, stop=start + size)
        start += size


def fewest_prefixes(plan: BlockPlan, blocks: Iterable[BlockIndex]) -> tuple[Prefix, ...]:
    """What these blocks cover, IPv4 before IPv6, in as few prefixes as possible.

    For the kernel, which gets a route for each: they are all compared every few seconds, which for
    a node with 5,000 blocks took a seventh of a processor.
    """
    parts: list[tuple[BlockIndex, int]] = []
    ordered = sorted(blocks)
    start = 0
    for at in range(1, len(ordered) + 1):
        if at == len(ordered) or ordered[at] != ordered[at - 1] + 1:
            run = Run(ordered[start], ordered[at - 1] + 1, NodeId(b""))
            parts += [(BlockIndex(part.start), part.stop - part.start) for part in aligned(run)]
            start = at
    fours = [_widen(plan.prefix4(block), size) for block, size in parts]
    sixes = [plan.prefix6(block) for block, _ in parts]
    widened = [_widen(six, size) for six, (_, size) in zip(sixes, parts, strict=True) if six]
    return (*fours, *widened)


def _view(plan: BlockPlan, nodes: Mapping[NodeId, NodeRecord], run: Run, pods: int) -> BlockView:
    record = nodes.get(run.owner)
    size = run.stop - run.start
    start = BlockIndex(run.start)
    return BlockView(
        prefix=_widen(plan.prefix4(start), size),
        prefix6=None if (prefix6 := plan.prefix6(start)) is None else _widen(prefix6, size),
        node=short_id(run.owner) if record is None else record.name,
        blocks=size,
        state=run.state,
        pods=pods,
    )


def _widen(prefix: Prefix, blocks: int) -> Prefix:
    # A block by itself, which most rows of a large cluster are, needs no second prefix object.
    return prefix if blocks == 1 else prefix.supernet(prefixlen_diff=blocks.bit_length() - 1)


def choose_giver(
    nodes: Mapping[NodeId, NodeRecord],
    exclude: Collection[NodeId],
    alive: Callable[[NodeId], bool],
) -> NodeId | None:
    """The node to ask for a block: the one with most free blocks; None if none has any.

    Args:
        nodes: the records.
        exclude: nodes not to be asked.
        alive: whether a node is worth asking.
    """
    givers = (
        (record.free_blocks, node)
        for node, record in nodes.items()
        if record.free_blocks and node not in exclude and alive(node)
    )
    return max(givers, default=(0, None))[1]
