"""What is said of members: believed, passed on, contradicted; and what a liar cannot do."""

from __future__ import annotations

import random

from overlay.effects import Report
from overlay.gossip.broadcast import CLAIMS_PER_MESSAGE
from overlay.gossip.hearsay import CLAIMS_FANOUT, REFUTE_INTERVAL, WARN_INTERVAL, Hearsay
from overlay.wire.claims import ClaimState
from overlay.wire.messages import Claims
from tests.support.gossips import DEAD, READY, SUSPECT, TIMING, claim, local_node, node_id, sent

SELF, A, B, C = (node_id(number) for number in range(4))
ALIVE_, SUSPECT_, DEAD_ = ClaimState


def make(peers=3):
    hearsay = Hearsay(local_node(0), TIMING, random.Random(1), lambda node: node[:4].hex())
    for number in range(1, peers + 1):
        hearsay.add(node_id(number), 1, 0.0)
    hearsay.members.told = True
    hearsay.check_invariants(0.0)
    return hearsay


def hear(hearsay, *claims, sender=B, now=1.0):
    actions = hearsay.on_claims(sender, claims, now)
    hearsay.check_invariants(now)
    return actions


def out_of(hearsay, now):
    """Claims that go out at the next deadlines, up to `now`."""
    letters = []
    while (at := hearsay.next_deadline()) is not None and at <= now:
        letters += sent(hearsay.on_deadline(at), Claims)
    return letters


# -- about others ----------------------------------------------------------------------------------


def test_a_suspicion_is_believed_reported_and_passed_on():
    hearsay = make()
    (report,) = hear(hearsay, claim(A, SUSPECT_))
    assert isinstance(report, Report)
    assert report.event == "member.suspect"
    assert hearsay.members.state(A, 1.0) is SUSPECT
    letters = out_of(hearsay, 9.0)
    assert 0 < len(letters) <= CLAIMS_FANOUT * 2
    assert {one for _, message in letters for one in message.claims} == {claim(A, SUSPECT_)}
    assert hear(hearsay, claim(A, SUSPECT_)) == []
    assert out_of(hearsay, 99.0) == []


def test_word_of_a_death_becomes_one_when_it_is_not_contradicted():
    hearsay = make()
    hear(hearsay, claim(A, DEAD_))
    assert A in hearsay.rings
    out_of(hearsay, 1.0 + TIMING.refute_within - 0.01)
    assert list(hearsay.dead) == []
    hearsay.on_deadline(1.0 + TIMING.refute_within)
    assert list(hearsay.dead) == [A]
    assert A not in hearsay.rings
    hearsay.check_invariants(9.0)
    (report,) = hear(hearsay, claim(A, ALIVE_, 1), now=9.0)
    assert (report.event, list(hearsay.dead)) == ("member.ready", [])
    assert A in hearsay.rings


def test_only_the_node_itself_can_go_on_to_the_next_incarnation():
    hearsay = make()
    for state in ClaimState:
        forged = claim(A, state, 1)._replace(proof=bytes(64))
        assert hear(hearsay, forged) == []
    assert hearsay.forged == 3
    assert hearsay.members.state(A, 1.0) is READY
    hear(hearsay, claim(A, SUSPECT_, 1))
    assert hearsay.members.claim(A).incarnation == 1


def test_what_is_said_of_strangers_changes_nothing():
    hearsay = make()
    before = hearsay.root()
    assert hear(hearsay, claim(node_id(9), DEAD_)) == []
    assert (hearsay.root(), hearsay.next_deadline()) == (before, None)


def test_confirmations_are_counted_by_who_says_it_and_only_from_observers():
    hearsay = make(peers=40)
    observers = [one for one in hearsay.rings.observers_of(A) if one != SELF]
    other = next(n for n in map(node_id, range(2, 41)) if n not in (*observers, A))
    own = claim(A, SUSPECT_, own=True)
    hear(hearsay, own, sender=other)
    hear(hearsay, claim(A, SUSPECT_), sender=observers[0])  # it was told so
    assert hearsay.accusers(A) == 0
    for _ in range(3):
        hear(hearsay, own, own, sender=observers[0])
    assert hearsay.accusers(A) == 1
    hear(hearsay, own, sender=observers[1])
    assert hearsay.accusers(A) == 2
    hear(hearsay, claim(A, SUSPECT_, 1), sender=observers[1])  # that is another matter
    assert hearsay.accusers(A) == 0


def test_an_observer_is_told_which_of_its_subjects_others_doubt():
    hearsay = make(peers=40)
    subject = hearsay.rings.subjects()[0]
    other = next(n for n in map(node_id, range(1, 41)) if n not in hearsay.rings.subjects())
    hear(hearsay, claim(subject, SUSPECT_), claim(other, SUSPECT_))
    assert hearsay.take_doubted() == [subject]
    assert hearsay.take_doubted() == []


def test_a_suspect_that_is_heard_is_told_what_is_said_of_it_but_not_all_the_time():
    hearsay = make()
    hear(hearsay, claim(A, SUSPECT_))
    told = Claims((claim(A, SUSPECT_),))
    assert sent(hearsay.on_heard(A, 2.0, 2.0)) == [(A, told)]
    assert sent(hearsay.on_heard(A, 2.1, 2.1)) == []
    assert sent(hearsay.on_heard(A, 2.0 + WARN_INTERVAL, 2.0 + WARN_INTERVAL)) == [(A, told)]
    assert hearsay.on_heard(A, 1.0, 9.0) is None  # older than what was heard


def test_whatever_goes_to_a_suspect_begins_with_the_claim_about_it():
    hearsay = make(peers=20)
    hear(hearsay, *(claim(node_id(n), SUSPECT_) for n in range(1, 12)))
    claims = hearsay.piggyback(A)
    assert claims[0] == claim(A, SUSPECT_)
    assert len(claims) == len(set(claims)) <= CLAIMS_PER_MESSAGE
    assert hearsay.about(node_id(15)) == ()


def test_an_own_accusation_says_that_it_is_one():
    hearsay = make()
    hearsay.accused[A] = 1.0
    hearsay.say(A, SUSPECT_, 1.0)
    assert hearsay.about(A) == (claim(A, SUSPECT_, own=True),)
    hearsay.on_heard(A, 2.0, 2.0)  # withdrawn, but not refuted
    assert hearsay.about(A) == (claim(A, SUSPECT_),)


# -- about ourselves -------------------------------------------------------------------------------


def test_an_accusation_is_contradicted_at_once_and_to_everybody():
    hearsay = make()
    hear(hearsay, claim(SELF, SUSPECT_))
    assert hearsay.next_deadline() == 1.0
    letters = sent(hearsay.on_deadline(1.0), Claims)
    assert len(letters) == CLAIMS_FANOUT + 1
    assert letters[0][0] == B  # who said so hears it first, neighbour or not
    mine = claim(SELF, ALIVE_, 1, own=True)
    assert all(message.claims == (mine,) for _, message in letters)
    assert (hearsay.refuted, hearsay.claim(SELF)) == (1, mine)


def test_an_old_accusation_or_one_of_another_start_is_none():
    hearsay = make()
    hear(hearsay, claim(SELF, SUSPECT_))
    hearsay.on_deadline(1.0)
    hear(hearsay, claim(SELF, DEAD_, 1, boot=2), claim(SELF, ALIVE_, 1), now=3.0)
    hear(hearsay, claim(SELF, DEAD_), sender=C, now=3.0)
    assert (C, Claims((hearsay.claim(SELF),))) in out_of(hearsay, 9.0)
    assert hearsay.refuted == 1


def test_accusations_without_end_are_contradicted_at_a_bounded_rate():
    hearsay = make()
    now = 1.0
    while now < 3.0:
        incarnation = hearsay.claim(SELF).incarnation
        hear(hearsay, claim(SELF, DEAD_, incarnation), now=now)
        hearsay.on_deadline(now)
        now += 0.01
    assert hearsay.refuted <= 2.0 / REFUTE_INTERVAL + 1


def test_an_incarnation_of_ours_that_we_forgot_is_outdone():
    hearsay = make()
    hear(hearsay, claim(SELF, SUSPECT_, 5))
    hearsay.on_deadline(1.0)
    assert hearsay.claim(SELF).incarnation == 6
    hear(hearsay, claim(SELF, SUSPECT_, 200)._replace(proof=bytes(64)), now=5.0)
    out_of(hearsay, 9.0)
    assert hearsay.claim(SELF).incarnation == 6


def test_a_later_start_begins_anew():
    hearsay = make()
    hear(hearsay, claim(SELF, SUSPECT_))
    hearsay.on_deadline(1.0)
    hearsay.set_boot(2)
    assert hearsay.claim(SELF) == claim(SELF, ALIVE_, own=True, boot=2)
    hearsay.set_boot(1)
    assert hearsay.claim(SELF).boot == 2


# -- comparing -------------------------------------------------------------------------------------


def test_two_nodes_that_believe_the_same_have_the_same_root_each_with_its_own_claim():
    one, other = make(), Hearsay(local_node(1), TIMING, random.Random(2), str)
    for number in (0, 2, 3):
        other.add(node_id(number), 1, 0.0)
    assert one.root() == other.root() == bytes(8)
    for state, incarnation in ((SUSPECT_, 0), (ALIVE_, 1), (DEAD_, 1)):
        one.on_claims(B, (claim(C, state, incarnation),), 1.0)
        assert one.root() != other.root()
        other.on_claims(B, one.notable(99), 1.0)
        assert one.root() == other.root()
    other.on_claims(C, (claim(A, SUSPECT_),), 1.0)
    other.on_deadline(1.0)  # A is the other: it contradicts
    one.on_claims(A, other.notable(99), 2.0)
    assert one.root() == other.root()


def test_of_much_to_say_the_newest_is_said_and_some_of_the_rest():
    hearsay = make(peers=30)
    for number in range(1, 31):
        hear(hearsay, claim(node_id(number), SUSPECT_))
    said = [one.node for one in hearsay.notable(10)]
    assert len(set(said)) == 10
    assert {node_id(number) for number in range(26, 31)} <= set(said)


def test_a_member_that_left_is_not_spoken_of():
    hearsay = make()
    hear(hearsay, claim(A, DEAD_))
    hearsay.remove(A)
    assert hearsay.notable(9) == hearsay.piggyback(B) == ()
    hearsay.check_invariants(9.0)


def test_a_new_start_brings_the_dead_back():
    hearsay = make()
    hear(hearsay, claim(A, SUSPECT_))
    hear(hearsay, claim(A, DEAD_), now=9.0)
    assert hearsay.members.state(A, 9.0) is DEAD
    (report,) = hearsay.add(A, 2, 10.0)
    assert report.event == "member.ready"
    assert A in hearsay.rings
    assert hearsay.add(A, 2, 11.0) is None
    hearsay.check_invariants(11.0)


# -- too many, and too far -------------------------------------------------------------------------


def test_after_one_forged_claim_no_other_proof_in_the_message_is_looked_at():
    hearsay = make()
    forged = claim(A, DEAD_, 1)._replace(proof=bytes(64))
    hear(hearsay, forged, claim(C, SUSPECT_, 1), claim(B, SUSPECT_))
    assert hearsay.forged == 1
    assert hearsay.members.claim(C).state is ALIVE_
    assert hearsay.members.claim(B).state is SUSPECT_, "this one needs no proof"
    hear(hearsay, claim(C, SUSPECT_, 1))
    assert hearsay.members.claim(C).state is SUSPECT_


def test_a_thief_of_the_key_who_uses_up_all_incarnations_stops_nobody():
    hearsay = make()
    hear(hearsay, claim(SELF, SUSPECT_, 2**32 - 1))
    assert out_of(hearsay, 9.0), "it contradicts as well as it can"
