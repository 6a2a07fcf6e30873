"""Addresses and blocks that are leaked or unreachable, as far as one node can see.

    leaked       a pod without a namespace: its address is held for nobody
    unreachable  a pod in a block that is another's now; a block whose owner is dead or has left
    differing    what this node announced of its pods is not what it holds
    resting      an address that rests longer than a quarantine

It looks and changes nothing. What `muslin ipam check --fix` frees are the leaked addresses; the
rest needs an operator who knows why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from overlay.conflict import Standing
from overlay.parts import Parts
from overlay.views import NodeState


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        code: stable, dashed.
        what: what is wrong; why: the cause; fix: what to do.
        pod: the pod whose addresses `--fix` frees; empty when it frees nothing.
    """

    code: str
    what: str
    why: str
    fix: str
    pod: str = ""


def audit(
    parts: Parts, standing: Standing, lost: Mapping[str, str], now: float, *, told: bool = True
) -> tuple[Finding, ...]:
    """Everything that is wrong with this node's addresses and the blocks it knows.

    Args:
        parts: the machines of the node.
        standing: with another machine of the same identity, records differ as they must.
        lost: pods without a namespace -> why.
        now: monotonic seconds.
        told: the record says all there is; False while changes wait to be announced together.
    """
    differing = _differing(parts) if told and standing is Standing.SOLE else ()
    own = (*_lost(parts, lost), *_homeless(parts), *differing, *_resting(parts, now))
    return (*own, *_silent(parts, now))


def _lost(parts: Parts, lost: Mapping[str, str]) -> Iterator[Finding]:
    for name, why in sorted(lost.items()):
        pod = parts.holdings.pods[name]
        address = parts.plan.address4(pod.block, pod.host)
        fix = f"muslin ipam check --fix, or muslin pod del {name}"
        yield Finding("pod-lost", f"pod {name} ({address}) is gone", why, fix, name)


def _homeless(parts: Parts) -> Iterator[Finding]:
    titles = parts.catalog.titles
    for pod in sorted(parts.holdings.pods.values(), key=lambda pod: pod.name):
        owner = titles.owner(pod.block)
        if owner != parts.local:
            address = parts.plan.address4(pod.block, pod.host)
            why = f"its block belongs to {parts.name_of(owner)}"
            fix = f"muslin pod del {pod.name}, then add it again"
            yield Finding("pod-unreachable", f"pod {pod.name} ({address}) is unreachable", why, fix)


def _differing(parts: Parts) -> Iterator[Finding]:
    record = parts.catalog.nodes.get(parts.local)
    if record is None:
        return
    said = {(pod.name, pod.block, pod.host) for pod in record.pods}
    held = {(pod.name, pod.block, pod.host) for pod in parts.holdings.pods.values()}
    for name, block, host in sorted(said ^ held):
        address = parts.plan.address4(block, host)
        announced = (name, block, host) in said
        where = "announced but not held" if announced else "held but not announced"
        why, fix = "the last record could not be made or stored", "see muslin status"
        yield Finding("record-differs", f"pod {name} ({address}) is {where}", why, fix)


def _resting(parts: Parts, now: float) -> Iterator[Finding]:
    for rest in parts.holdings.allocator.resting(now):
        left = rest.until - now
        if left > parts.holdings.quarantine:
            address = parts.plan.address4(rest.slot.block, rest.slot.host)
            why = f"it was {rest.pod}'s, and is not free for another {left:.0f} s"
            yield Finding("resting-long", f"{address} rests too long", why, "restart the daemon")


def _silent(parts: Parts, now: float) -> Iterator[Finding]:
    """Members that are dead or have left and still own blocks; one finding for each."""
    for record in sorted(parts.catalog.nodes.values(), key=lambda record: record.name):
        blocks = parts.catalog.titles.blocks_of(record.node)
        if record.node == parts.local or not blocks:
            continue
        state = NodeState.LEFT if record.left else parts.gossip.state(record.node, now)
        if state in (NodeState.DEAD, NodeState.LEFT):
            what = f"{len(blocks)} blocks of {record.name} are out of reach"
            fix = f"start {record.name}, or run muslin remove {record.name} if it is gone for ever"
            yield Finding("blocks-unreachable", what, f"{record.name} is {state}", fix)
