"""The failure detector, step by step; and that it does not blame others for its own sleep."""

from __future__ import annotations

import random

import pytest

from overlay.effects import ProbeAnswered, Report
from overlay.errors import StateError
from overlay.gossip.liveness import HELPED, HELPED_EACH, HELPERS, LATE, URGENT, Liveness
from overlay.gossip.suspicion import least_timeout
from overlay.wire.claims import ClaimState
from overlay.wire.messages import Claims, IndirectProbe, IndirectReply, Probe, ProbeReply
from tests.support.gossips import DEAD, READY, SUSPECT, TIMING, claim, local_node, node_id, sent

A, B, C, D = (node_id(number) for number in range(1, 5))
LEAST = least_timeout(4, TIMING)


class Play:
    """One node with members that answer, or not; time goes from deadline to deadline."""

    def __init__(self, peers=3, silent=(), nacks=True):
        self.liveness = Liveness(local_node(0), TIMING, random.Random(3), lambda n: n[:4].hex())
        self.now = 0.0
        self.silent = set(silent)
        self.nacks = nacks
        self.said = []
        for number in range(1, peers + 1):
            self.liveness.add(node_id(number), 1, 0.0)
        self.liveness.hearsay.members.told = True

    def run(self, until):
        while (at := self.liveness.next_deadline()) is not None and at <= until:
            self.now = max(self.now, at)
            self.take(self.liveness.on_deadline(self.now))
            self.liveness.check_invariants(self.now)
        self.now = until

    def take(self, actions):
        self.said += [(self.now, *one) for one in sent(actions)]
        self.said += [(self.now, one.event, None) for one in actions if isinstance(one, Report)]
        for node, message in sent(actions):
            if node in self.silent:
                continue
            if isinstance(message, Probe):
                self.hear(node, ProbeReply(message.sequence))
            if isinstance(message, IndirectProbe) and self.nacks:
                reached = message.node not in self.silent
                self.hear(node, IndirectReply(message.sequence, reached))

    def hear(self, node, message):
        actions = self.liveness.on_heard(node, self.now, self.now)
        actions += self.liveness.on_claims(node, message.claims, self.now)
        if not isinstance(message, Claims):
            actions += self.liveness.on_message(node, message, self.now)
        self.take(actions)

    def state(self, node):
        return self.liveness.hearsay.members.state(node, self.now)

    def sent(self, kind, to=None):
        return [
            (at, node, message)
            for at, node, message in self.said
            if isinstance(message, kind) and to in (None, node)
        ]

    def at(self, event):
        (at,) = [at for at, name, _ in self.said if name == event]
        return at


def test_every_subject_is_probed_in_turn():
    play = Play(peers=4)
    play.run(100.0)
    counts = [len(play.sent(Probe, to=node_id(number))) for number in range(1, 5)]
    assert sum(counts) == pytest.approx(100 / TIMING.probe_interval, rel=0.05)
    assert max(counts) - min(counts) <= 1
    assert play.state(A) is READY


def test_who_accuses_all_the_time_keeps_nobody_else_from_being_probed():
    accused, silent = [node_id(number) for number in range(2, 7)], node_id(7)
    play = Play(peers=7, silent=[silent])
    for incarnation in range(1, 100):
        play.run(play.now + 0.25)
        for node in accused:
            suspect = claim(node, ClaimState.SUSPECT, incarnation - 1)
            play.take(play.liveness.on_claims(A, (suspect,), play.now))
            alive = claim(node, ClaimState.ALIVE, incarnation)
            play.take(play.liveness.on_claims(node, (alive,), play.now))
    assert play.state(silent) is DEAD


def test_in_a_large_cluster_only_subjects_are_probed():
    play = Play(peers=40)
    play.run(30.0)
    probed = {node for _, node, _ in play.sent(Probe)}
    assert probed == set(play.liveness.hearsay.rings.subjects())


def test_a_silent_subject_is_probed_twice_then_through_others_then_suspected_then_dead():
    play = Play(silent=[A])
    play.run(20.0)
    begun = play.sent(Probe, to=A)[0][0]
    probes = [at - begun for at, _, _ in play.sent(Probe, to=A)][:2]
    assert probes == [0.0, pytest.approx(TIMING.probe_timeout / 2)]
    asked = [(at, node) for at, node, message in play.sent(IndirectProbe)]
    assert {node for at, node in asked if at < begun + 1} == {B, C}
    assert asked[0][0] - begun == pytest.approx(TIMING.probe_timeout)
    suspected = play.at("member.suspect")
    assert suspected - begun == pytest.approx(2 * TIMING.probe_timeout)
    # Two others could have confirmed it, and did not: the longest wait.
    assert play.at("member.dead") - suspected == pytest.approx(LEAST * TIMING.suspicion_most)
    assert play.state(B) is READY


def test_confirmations_of_other_observers_shorten_the_wait():
    play = Play(silent=[A])
    while not play.liveness.hearsay.accused:
        play.run(play.liveness.next_deadline())
    play.run(play.now + 0.5)
    for other in (B, C):
        play.hear(other, Claims((claim(A, ClaimState.SUSPECT, own=True),)))
    play.run(20.0)
    assert play.at("member.dead") - play.at("member.suspect") == pytest.approx(LEAST)


def test_a_lone_pair_does_not_wait_for_confirmations_that_cannot_come():
    play = Play(peers=1, silent=[A])
    play.run(20.0)
    assert play.at("member.dead") - play.at("member.suspect") == pytest.approx(LEAST)


def test_who_is_reached_by_others_is_not_suspected():
    play = Play()
    silent, play.silent = play.silent, {A}
    reply = play.hear

    def hear(node, message):
        if isinstance(message, IndirectReply):
            message = IndirectReply(message.sequence, reached=True)
        reply(node, message)

    play.hear = hear
    play.run(10.0)
    assert silent == set()
    assert play.state(A) is READY
    view = play.liveness.hearsay.members.view(A, play.now)
    assert (view.reached, view.loss) == (False, 1.0)


def test_anything_heard_from_a_suspect_withdraws_our_accusation_and_tells_it():
    play = Play(silent=[A])
    play.run(3.0)
    assert play.state(A) is SUSPECT
    play.said.clear()
    play.hear(A, Claims(()))
    ((_, _, told),) = play.sent(Claims, to=A)
    assert told.claims == (claim(A, ClaimState.SUSPECT),)
    play.silent.clear()
    play.run(30.0)
    assert play.state(A) is SUSPECT  # until it contradicts
    play.hear(A, Claims((claim(A, ClaimState.ALIVE, 1),)))
    assert play.state(A) is READY
    assert "member.dead" not in [event for _, event, _ in play.said]


def test_a_subject_that_another_doubts_is_probed_at_once():
    play = Play()
    play.run(5.0)
    play.said.clear()
    play.hear(B, Claims((claim(A, ClaimState.SUSPECT, own=True),)))
    first = next((node, type(message)) for _, node, message in play.said if message)
    assert first == (A, Probe)
    play.run(30.0)
    assert play.state(A) is SUSPECT  # and it is not for us to judge: we reach it


def test_accusing_many_at_once_makes_no_storm_of_probes():
    play = Play(peers=8)
    play.run(5.0)
    play.said.clear()
    play.silent = {node_id(number) for number in range(1, 9)}
    claims = tuple(claim(node_id(number), ClaimState.SUSPECT) for number in range(1, 8))
    play.hear(node_id(8), Claims(claims))
    assert len(play.sent(Probe)) <= URGENT
    play.run(5.0 + 8 * TIMING.probe_interval)
    assert {node_id(n) for n in range(1, 8)} <= {node for _, node, _ in play.sent(Probe)}


# -- local health ----------------------------------------------------------------------------------


def test_who_woke_up_late_judges_nobody_and_doubts_itself():
    play = Play(silent=[A])
    play.run(play.liveness.next_deadline())
    while not play.liveness.hearsay.accused:
        play.run(play.liveness.next_deadline())
    play.now += 100.0
    play.take(play.liveness.on_deadline(play.now))
    assert play.state(A) is SUSPECT
    assert play.liveness.awareness.score >= 1
    # What was said meanwhile is read before the next judgement.
    assert play.liveness.next_deadline() > play.now
    play.hear(A, Claims((claim(A, ClaimState.ALIVE, 1),)))
    play.silent.clear()
    play.run(play.now + 60.0)
    assert "member.dead" not in [event for _, event, _ in play.said]


def test_a_timer_that_is_a_little_late_is_no_sign_of_anything():
    play = Play()
    play.run(3.0)
    play.take(play.liveness.on_deadline(play.liveness.next_deadline() + LATE / 2))
    assert play.liveness.awareness.score == 0


def test_helpers_that_do_not_even_decline_are_a_sign_that_it_is_us():
    answered, unheard = Play(silent=[A]), Play(silent=[A], nacks=False)
    for play in (answered, unheard):
        while not play.liveness.hearsay.accused:
            play.run(play.liveness.next_deadline())
    assert answered.liveness.awareness.score == 0
    assert unheard.liveness.awareness.score == 2


def test_a_node_that_doubts_itself_probes_more_patiently():
    play = Play(silent=[A])
    play.liveness.awareness.apply(3)
    play.run(3.0)
    play.liveness.awareness.score = 3
    begun = len(play.said)
    play.run(20.0)
    asked = [at for at, _, m in play.said[begun:] if isinstance(m, IndirectProbe)]
    probed = [at for at, node, m in play.said[begun:] if isinstance(m, Probe) and node == A]
    assert asked[0] - probed[0] > 2 * TIMING.probe_timeout


# -- helping ---------------------------------------------------------------------------------------


def test_help_is_given_and_a_refusal_says_that_we_live():
    play = Play(silent=[A])
    play.hear(B, IndirectProbe(77, C))
    assert play.sent(IndirectReply)[-1][1:] == (B, IndirectReply(77, reached=True))
    play.hear(B, IndirectProbe(78, A))
    play.run(0.8 * TIMING.probe_timeout + 0.01)
    assert play.sent(IndirectReply)[-1][1:] == (B, IndirectReply(78, reached=False))
    play.hear(B, IndirectProbe(79, node_id(99)))
    assert play.sent(IndirectReply)[-1][1:] == (B, IndirectReply(79, reached=False))


def test_help_is_bounded():
    play = Play(peers=4, silent=[A])
    for number in range(HELPED):
        for other in (B, C, D):
            play.hear(other, IndirectProbe(number, A))
    assert len(play.sent(Probe, to=A)) == HELPED
    assert len(play.sent(IndirectReply)) == 2 * HELPED


def test_who_asks_for_help_without_end_leaves_some_for_others():
    play = Play(peers=3, silent=[A])
    for number in range(2 * HELPED):
        play.hear(B, IndirectProbe(number, A))
    assert len(play.sent(Probe, to=A)) == HELPED_EACH
    play.hear(C, IndirectProbe(1, A))
    assert len(play.sent(Probe, to=A)) == HELPED_EACH + 1
    play.run(2 * TIMING.probe_interval)
    before = len(play.sent(Probe, to=A))
    play.hear(B, IndirectProbe(99, A))
    assert len(play.sent(Probe, to=A)) == before + 1


def test_no_more_than_three_are_asked_for_help():
    play = Play(peers=8, silent=[A])
    play.run(20.0)
    sequence = play.sent(IndirectProbe)[0][2].sequence
    helpers = [n for _, n, message in play.sent(IndirectProbe) if message.sequence == sequence]
    assert len(helpers) == len(set(helpers)) == HELPERS
    assert A not in helpers


# -- requests, and the dead ------------------------------------------------------------------------


def test_a_requested_probe_is_answered_with_its_token():
    play = Play()
    ((node, probe),) = sent(play.liveness.probe(A, 42, 1.0))
    assert node == A
    reply = ProbeReply(probe.sequence)
    assert play.liveness.on_message(A, reply, 1.25) == [ProbeAnswered(A, 42, 0.25)]
    assert play.liveness.on_message(A, reply, 1.5) == []
    with pytest.raises(StateError):
        play.liveness.probe(node_id(99), 43, 1.0)


def test_round_trip_times_are_those_of_members_that_were_heard():
    play = Play(silent=[A, B, C])
    play.run(play.liveness.next_deadline())
    ((_, node, probe),) = play.sent(Probe)
    play.now += 0.2
    play.hear(node, ProbeReply(probe.sequence))  # it had to wait for a session
    assert play.liveness.hearsay.members.view(node, play.now).rtt is None
    play.silent.clear()
    play.run(10.0)
    assert play.liveness.hearsay.members.view(node, play.now).rtt == 0.0


def test_the_dead_are_called_for_ever_one_at_a_time_with_one_message():
    play = Play(silent=[A, B])
    play.run(60.0)
    assert {play.state(A), play.state(B)} == {DEAD}
    play.said.clear()
    calls = []
    while play.now < 160.0:
        play.now = play.liveness.next_deadline()
        actions = play.liveness.on_deadline(play.now)
        calls += [one for one in actions if getattr(one, "once", False)]
        play.take([one for one in actions if not getattr(one, "once", False)])
    assert len(calls) == pytest.approx(100 / TIMING.dead_call_interval, rel=0.25)
    assert {call.node for call in calls} == {A, B}
    assert all(call.message.claims[0].state is ClaimState.DEAD for call in calls)
    assert {node for _, node, _ in play.sent(Probe)} == {C}


def test_one_dead_among_many_is_not_called_by_all_of_them_all_the_time():
    few, many = Play(peers=3), Play(peers=200)
    for play in (few, many):
        play.hear(B, Claims((claim(A, ClaimState.SUSPECT),)))
        play.liveness.hearsay.say(A, ClaimState.DEAD, 5.0)
        play.now = 10.0
        play.liveness.hearsay.follow(A, 10.0)
    waits = [sum(p.liveness._call_wait() for _ in range(50)) / 50 for p in (few, many)]
    assert waits[0] == pytest.approx(TIMING.dead_call_interval, rel=0.2)
    assert waits[1] == pytest.approx(25 * TIMING.dead_call_interval, rel=0.3)


def test_without_members_there_is_nothing_to_do():
    play = Play(peers=1)
    play.liveness.remove(A)
    play.liveness.remove(A)
    assert play.liveness.next_deadline() is None
    assert play.liveness.on_deadline(9.0) == []
