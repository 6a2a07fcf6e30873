"""Each check that keeps a lying member out is alive: without it, the test of its lie fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from overlay.errors import OverlayError
from tests.sim import test_insider as lies
from tests.sim import test_insider_floods as floods
from tests.sim import test_insider_unseen as unseen
from tests.sim.test_alive import without_signatures

Patch = pytest.MonkeyPatch


def without_authorities(patch: Patch) -> None:
    """Whoever signs a removal or a base is an authority."""
    patch.setattr("overlay.catalog.judge.Judge._decline", lambda *_: None)


def without_proofs_of_life(patch: Patch) -> None:
    patch.setattr("overlay.sim.reader.SharedReader.is_proven", lambda *_: True)


def without_inner_sources(patch: Patch) -> None:
    patch.setattr("overlay.forwarding.inbound.Inbound._admit", lambda *_: True)


def without_allowances(patch: Patch) -> None:
    patch.setattr("overlay.allowance.Allowances.spend", lambda *_: None)


def without_charges(patch: Patch) -> None:
    patch.setattr("overlay.allowance.Allowances.charge", lambda *_: None)


def without_record_rates(patch: Patch) -> None:
    patch.setattr("overlay.refusals.RECORDS", 1e9)


def without_jumps(patch: Patch) -> None:
    patch.setattr("overlay.refusals.JUMP", 1 << 40)


def without_blame(patch: Patch) -> None:
    """Whatever is wrong with an item, an honest node might have sent it."""
    patch.setattr("overlay.catalog.catalog.lie_of", lambda error: None)


def without_a_book(patch: Patch) -> None:
    patch.setattr("overlay.complaints.Complaints.note", lambda *_, **__: None)


def without_telling(patch: Patch) -> None:
    patch.setattr("overlay.complaints.Complaints.told", lambda book: ())


def without_decoding_errors(patch: Patch) -> None:
    patch.setattr("overlay.manners.WireError", KeyError)


def without_looks_at_titles(patch: Patch) -> None:
    patch.setattr("overlay.manners.Manners._look_at_titles", lambda *_: None)


def without_titles(patch: Patch) -> None:
    """Whoever lists a block has it."""
    patch.setattr(
        "overlay.catalog.catalog.Catalog.ranges_of", lambda catalog, node: _listed(catalog, node)
    )


def _listed(catalog: object, node: object) -> tuple[object, ...]:
    taken = {
        block for one in catalog.nodes.values() if one.node != node for block in one.blocks_in_use
    }
    record = catalog.nodes.get(node)
    return tuple(one for one in record.blocks_in_use if one not in taken)


def told(lie: lies.Lie, code: str) -> Callable[[], None]:
    return partial(
        lies.test_a_lie_is_refused_and_named_everywhere_and_nobody_else_notices, lie, code
    )


def flooded(say: Callable[..., None], per_second: int) -> Callable[[], None]:
    return partial(floods.test_a_flood_is_cut_off_and_named_everywhere, say, per_second)


CHECKS: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (without_signatures, told(lies.a_newer_record_of_the_victim, "forged-record")),
    (without_signatures, told(lies.the_tombstone_of_the_victim, "forged-record")),
    (without_signatures, told(lies.endpoints_of_the_victim, "forged-record")),
    (
        without_signatures,
        told(lies.a_record_of_a_node_that_nobody_certified, "forged-certificate"),
    ),
    (without_signatures, told(lies.a_deed_that_gives_away_the_victims_block, "forged-deed")),
    (without_authorities, told(lies.a_base_that_makes_the_victims_block_its_own, "forged-base")),
    (without_authorities, told(lies.a_removal_of_the_victim, "forged-removal")),
    (
        without_proofs_of_life,
        told(lies.a_contradiction_that_the_victim_has_not_made, "forged-claim"),
    ),
    (
        without_proofs_of_life,
        told(lies.a_death_in_an_incarnation_that_never_was, "forged-claim"),
    ),
    (without_inner_sources, told(lies.a_packet_from_the_victims_pod, "foreign-source")),
    (without_inner_sources, lies.test_nothing_of_a_packet_that_is_not_its_senders_is_delivered),
    (
        without_inner_sources,
        lies.test_packets_to_addresses_that_are_elsewhere_are_named_when_they_go_on,
    ),
    (
        without_blame,
        told(lies.an_old_record_of_the_victim_under_a_new_version, "malformed-item"),
    ),
    (without_decoding_errors, told(lies.lists_inside_each_other, "malformed-message")),
    (without_allowances, flooded(floods.summaries, 100)),
    (without_allowances, flooded(floods.requests_for_blocks, 100)),
    (without_charges, floods.test_a_flood_of_forged_records_costs_few_checks_and_is_named),
    (without_record_rates, floods.test_a_flood_of_records_is_slowed_down_and_named_everywhere),
    (without_jumps, lies.test_a_jump_of_its_own_version_is_named_and_harms_nobody_else),
    (
        without_looks_at_titles,
        lies.test_a_block_that_is_signed_over_twice_is_proof_against_its_giver,
    ),
    (without_a_book, told(lies.a_newer_record_of_the_victim, "forged-record")),
    (without_telling, told(lies.a_newer_record_of_the_victim, "forged-record")),
    (
        without_titles,
        partial(
            unseen.test_a_lie_that_nobody_can_see_harms_nobody,
            unseen.that_the_victims_block_is_in_its_use,
        ),
    ),
]


@pytest.mark.parametrize(
    ("take_away", "test"),
    CHECKS,
    ids=[f"{one.__name__}-{number}" for number, (one, _) in enumerate(CHECKS)],
)
def test_without_a_check_the_test_of_its_lie_fails(
    take_away: Callable[[Patch], None], test: Callable[[], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        take_away(patch)
        with pytest.raises((AssertionError, OverlayError)):
            test()
