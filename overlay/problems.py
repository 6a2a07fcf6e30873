"""What keeps a node from being well, one line each, for `muslin status`: what, why, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from overlay.catalog.outside import NOT_CERTIFIED, TAKEN
from overlay.complaints import Complaint
from overlay.crossing import crossing_notices
from overlay.ending import Ending
from overlay.expiry import member_problems, own_problems
from overlay.faults import WRONGS
from overlay.keys import LOCKED
from overlay.views import NodeState, NodeView, Problem

if TYPE_CHECKING:  # the engine calls this module; the type alone needs it back
    from overlay.engine import Engine

MAX_REFUSED: Final = 16
"""Lines about outside routes; a node may advertise eight."""

MAX_NAMES: Final = 5
"""Names in one line; more are counted."""

KEY_DIGITS: Final = 16
"""Hexadecimal digits of a key in a line."""

MAX_ACCUSED: Final = 16
"""Lines of what others complain of; more are counted."""

_ENDED: Final = {
    Ending.REMOVED: "an operator declared it dead: nobody talks to it any more",
    Ending.LEFT: "a machine with a copy of its state left, or its state is from before it left",
}


def problems_of(engine: Engine, nodes: Sequence[NodeView], now: float) -> tuple[Problem, ...]:
    """All problems that the engine of a node sees at `now`; `nodes` are its views of all nodes."""
    return (
        *_own(engine),
        *_blocks(engine, now),
        *_removals(engine),
        *_doubled(nodes),
        *_unannounced(engine),
        *_refused(engine),
        *_authorities(engine),
        *_certificates(engine, now),
        *_silent(engine, nodes, now),
        *_misbehaving(engine, now),
        *engine.parts.hostports.problems(engine.parts.holdings.pods.values()),
    )


def notices_of(engine: Engine) -> tuple[Problem, ...]:
    """What an operator should know of, though the node is well.

    What others complain of is here and no problem: else one member that lies would have every node
    say that it is not well.
    """
    nodes, cluster = engine.parts.catalog.nodes, engine.cluster
    crossing = crossing_notices(nodes, engine.identity.node, cluster)
    freed = engine.freed_at_start()
    return (*_locked(engine), *_accused(engine), *crossing, *([freed] if freed else ()))


def _locked(engine: Engine) -> Iterator[Problem]:
    if engine.parts.signers.is_locked:
        yield Problem(
            "authority-locked",
            LOCKED,
            "nobody has said the passphrase since the daemon started",
            "run muslin authority unlock; until then nobody joins, is removed or gets certificates",
        )


def _own(engine: Engine) -> Iterator[Problem]:
    if engine.not_stored:
        yield Problem(
            "not-stored",
            "the node's state cannot be written",
            engine.not_stored,
            "free space or mend the disk; packets flow, nothing new is handed out",
        )
    if (conflict := engine.conflict.problem()) is not None:
        yield conflict
    if (ended := engine.parts.holdings.ended) is not None:
        fix = "stop it, remove its folder, and join again with a new token"
        yield Problem(ended.value, ended.what, _ENDED[ended], fix)
    if (load := engine.parts.sessions.load).loaded:
        yield Problem(
            "under-load",
            "more handshakes are asked for than this node answers unasked",
            f"{load.rate} were looked at in the last second: strangers, or many members at once",
            "sessions that are up go on; if it lasts, let a packet filter keep strangers out",
        )
    for name, evidence in engine.watch.found.items():
        yield Problem(
            f"invariant-{name}",
            "something happened that must never happen",
            evidence,
            "keep the state folder and the log, report it, restart the node",
        )


def _certificates(engine: Engine, now: float) -> Iterator[Problem]:
    parts = engine.parts
    wall, records = parts.wall.at(now), parts.catalog.nodes.values()
    if parts.holdings.ended is None and not parts.holdings.left:
        yield from own_problems(engine.identity.certificate, parts.renewal, wall)
    others = (one for one in records if one.node != engine.identity.node and not one.left)
    yield from member_problems(sorted(others, key=lambda record: record.name), wall)


def _authorities(engine: Engine) -> Iterator[Problem]:
    if engine.parts.distrust.is_void and engine.parts.holdings.ended is None:
        yield Problem(
            "certificate-void",
            "this node's certificate is worth nothing: no member talks to it",
            "the authority that signed it was removed",
            "have it signed anew: muslin cert request here, muslin cert sign there; or join again",
        )
    judge = engine.parts.catalog.judge
    for link in judge.forks.values():
        signer, key = link.signer.hex()[:KEY_DIGITS], link.key.hex()[:KEY_DIGITS]
        standing = judge.trust.standing(link.signer) or "unknown here"
        yield Problem(
            "authority-conflict",
            "there is another list of authorities, which nobody who has this one believes",
            f"its link {link.number} ({link.act.name.lower()} {key}) is by {signer}, {standing}",
            "a key is stolen or was copied: rotate to a new one; see muslin authority list",
        )


def _blocks(engine: Engine, now: float) -> Iterator[Problem]:
    parts = engine.parts
    holdings, seeker = parts.holdings, parts.seeker
    if seeker.seeking and not holdings.blocks_in_use:
        yield Problem(
            "no-block",
            "this node has no address block",
            seeker.why,
            "make a member with free blocks reachable",
        )
    elif seeker.seeking and not holdings.free_slots(now):
        yield Problem(
            "no-free-address",
            "every pod address of this node is taken or rests",
            f"it asked for another block: {seeker.why}",
            "delete pods, or make a member with free blocks reachable",
        )
    for block in () if holdings.ended else holdings.lost():
        pods = [name for name, pod in holdings.pods.items() if pod.block == block]
        owner = parts.name_of(parts.catalog.titles.owner(block))
        yield Problem(
            "block-lost",
            f"{parts.plan.prefix4(block)} is not this node's any more, but pods here use it",
            f"it is titled to {owner}; nobody can reach {_some(pods)}",
            "delete these pods and add them anew",
        )
    for conflict in parts.catalog.titles.conflicts:
        won, lost = parts.name_of(conflict.won.taker), parts.name_of(conflict.lost.taker)
        yield Problem(
            "deed-conflict",
            f"node {parts.name_of(conflict.giver)} gave {parts.plan.prefix4(conflict.block)} twice",
            f"deed {conflict.won.sequence} is signed for {won}, who has it now, and for {lost}",
            "if that was not an old backup of its state, muslin remove it; see muslin get blocks",
        )


def _removals(engine: Engine) -> Iterator[Problem]:
    landlord = engine.landlord
    if engine.parts.registrar is None or not (blocks := landlord.reclaimable()):
        return
    if waiting := landlord.waiting_for():
        yield Problem(
            "reclaim-waits",
            f"{blocks} block{'s' * (blocks > 1)} of removed nodes cannot be taken back yet",
            f"not acknowledged by {_some(waiting)}",
            "make them reachable, or remove them too if they are gone for ever",
        )


def _doubled(nodes: Sequence[NodeView]) -> Iterator[Problem]:
    for view in nodes:
        if view.conflict and not view.local:
            yield Problem(
                "node-identity-conflict",
                f"the identity of node {view.name} is in use twice",
                "two machines have signed as that node: a restored or copied state folder",
                f"stop one of the two, then run muslin ipam claim on {view.name}",
            )


def _unannounced(engine: Engine) -> Iterator[Problem]:
    wanted, certified = engine.parts.record.routes, engine.identity.certificate.routes
    for one in engine.parts.outside.unannounced(wanted, certified):
        fix = f"take {one.prefix} out of advertise_routes"
        if one.code == NOT_CERTIFIED:
            sign = f"muslin cert sign --route {one.prefix} where the authority's key is"
            fix = f"have one signed that does (muslin cert request, then {sign}), or {fix}"
        yield Problem(one.code, f"outside route {one.prefix} is not advertised", one.why, fix)


def _refused(engine: Engine) -> Iterator[Problem]:
    """What members advertise and this node does not follow; packets go nowhere because of it."""
    parts = engine.parts
    refused = parts.outside.refused
    for one in refused[:MAX_REFUSED]:
        name, why = parts.name_of(one.node), one.why
        other = None if one.other is None else parts.name_of(one.other)
        fix = f"take it out of advertise_routes of {name}"
        if one.code == TAKEN:
            why = f"{other} advertises {why}, and has the better consent or the lower id"
        elif other is not None:
            why = f"{why} of {other}"
            fix = f"give {other} an underlay address elsewhere (--advertise), or {fix}"
        else:
            fix = f"{fix}; if that was not its operator, muslin remove {name}"
        yield Problem(one.code, f"outside route {one.prefix} of {name} is not in force", why, fix)
    if (more := len(refused) - MAX_REFUSED) > 0:
        yield Problem(
            "routes-refused",
            f"{more} more outside routes are not in force",
            "members advertise them that may not, or underlay addresses are in the way",
            "see muslin status once these are mended",
        )
    for claim in parts.outside.ignored()[:MAX_REFUSED]:
        name, via = parts.name_of(claim.node), parts.name_of(parts.outside.in_force[claim.prefix])
        yield Problem(
            "endpoint-in-route",
            f"node {name} is not looked for at {claim.endpoint}",
            f"that is in {claim.prefix}, which is routed to {via}, and {name} never answered there",
            f"give {name} an underlay address elsewhere (--advertise)",
        )


def _silent(engine: Engine, nodes: Sequence[NodeView], now: float) -> Iterator[Problem]:
    unreached = engine.parts.gossip.unreached(now)
    for view in nodes:
        if view.id in unreached:
            yield Problem(
                "no-path",
                f"there is no way to node {view.name}",
                "others reach it, but it does not answer this node",
                f"see whether UDP between here and {view.endpoint or 'it'} gets through",
            )
        if view.state in (NodeState.SUSPECT, NodeState.DEAD):
            yield Problem(
                f"node-{view.state}",
                f"node {view.name} is {view.state}",
                f"nothing was heard of it for {view.seen:.0f} s"
                if view.seen is not None
                else "nothing was heard of it since this node started",
                f"see whether {view.name} runs and UDP to {view.endpoint or 'it'} gets through",
            )


def _misbehaving(engine: Engine, now: float) -> Iterator[Problem]:
    """What this node has seen itself."""
    parts = engine.parts
    for (node, fault), entry in parts.complaints.entries.items():
        name = parts.name_of(node)
        times = f"{entry.times} times, " if entry.times > 1 else ""
        why = f"{times}last {now - entry.last:.0f} s ago: {entry.evidence or WRONGS[fault]}"
        yield Problem(
            f"member-{fault}",
            f"node {name} misbehaves: {fault}",
            why,
            f"refused, nothing else is lost by it; see what runs on {name}, or muslin remove it",
        )


def _accused(engine: Engine) -> Iterator[Problem]:
    """What others say that they have seen: their word, and no more than that."""
    parts = engine.parts
    nodes = parts.catalog.nodes
    accusers: dict[Complaint, list[str]] = {}
    for record in nodes.values():
        # Whoever names nodes that nobody knows is not helped to put them into status.
        for complaint in record.complaints if record.node != parts.local else ():
            if complaint.node in nodes:
                accusers.setdefault(complaint, []).append(record.name)
    told = sorted(accusers.items(), key=lambda one: (-len(one[1]), one[0]))
    for (node, fault), names in told[:MAX_ACCUSED]:
        name = parts.name_of(node)
        says = "complains" if len(names) == 1 else "complain"
        yield Problem(
            "member-accused",
            f"{_some(sorted(names))} {says} of {name}: {fault}",
            f"that is their word: {WRONGS[fault]}",
            f"see muslin status there, and what runs on {name}",
        )
    if (more := len(told) - MAX_ACCUSED) > 0:
        yield Problem(
            "member-accused",
            f"members complain of {more} more things",
            "a member may complain of whom it likes: one that lies may say so of many",
            "see muslin status on the members that complain",
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
