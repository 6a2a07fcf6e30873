"""What limits, told from figures."""

from __future__ import annotations

import pytest

from node.bench.figures import Datagrams, Figures, Load, Stream, Way
from node.bench.verdict import find_limit

IDLE = Load(daemon=0.3, busiest=0.3, idle=0.6, cores=4)
FULL = Load(daemon=0.98, busiest=0.97, idle=0.5, cores=4)
FULLER = Load(daemon=1.0, busiest=1.0, idle=0.5, cores=4)
STARVED = Load(daemon=0.5, busiest=0.5, idle=0.01, cores=2)
LANES = Load(daemon=1.8, busiest=0.9, idle=0.4, cores=4)
MANY_LANES = Load(daemon=1.6, busiest=0.4, idle=0.4, cores=4)


def figures(
    overlay: float = 6.0,
    underlay: float | None = 12.0,
    *,
    here: Load | None = IDLE,
    there: Load | None = IDLE,
    loss: float = 0.0,
    again: int = 0,
) -> Figures:
    """Gbit/s through the overlay and beside it; loss of datagrams; retransmissions of 1000."""
    size = round(overlay * 1e9 / 8)
    stream = Stream("to", size, 1.0, segments=1000, again=again, here=here, there=there)
    arrived = round(1000 * (1 - loss))
    found = Figures(Way("a", [stream], Datagrams(1000, arrived, [0.001] * arrived)), Way("b"))
    if underlay is not None:
        found.underlay.streams.append(Stream("to", round(underlay * 1e9 / 8), 1.0))
    return found


@pytest.mark.parametrize(
    ("found", "code", "evidence"),
    [
        (figures(here=FULL), "cpu-here", "daemon 98 % of a core, machine 50 % idle, cores 4"),
        (figures(there=FULL), "cpu-there", "daemon 98 % of a core"),
        (figures(here=FULL, there=FULLER), "cpu-there", "daemon 100 % of a core"),
        (figures(here=FULLER, there=FULL), "cpu-here", "daemon 100 % of a core"),
        (figures(here=STARVED), "cpu-here", "machine 1 % idle, cores 2"),
        (figures(here=STARVED, there=STARVED), "cpu-here", "machine 1 % idle"),
        (figures(here=LANES), "cpu-here", "1.8 cores, its busiest process 90 % of one"),
        (figures(here=MANY_LANES), "none", "here: daemon 1.6 cores"),
        (figures(overlay=11.0), "path", "overlay / underlay 0.92"),
        (figures(overlay=11.0, here=FULL), "path", "the underlay itself"),
        (figures(overlay=11.0, again=30), "path", "overlay / underlay 0.92"),
        (figures(overlay=11.0, loss=0.03), "loss", "3.0 % of datagrams lost"),
        (figures(loss=0.02), "loss", "2.0 % of datagrams lost, 0.0 % of TCP segments"),
        (figures(again=20, here=FULL), "loss", "2.0 % of TCP segments sent again"),
        (figures(loss=0.009, again=10), "none", ""),
        (figures(underlay=None, here=FULL), "cpu-here", ""),
        (figures(), "none", "there: daemon 30 % of a core, machine 60 % idle, cores 4; overlay"),
        (figures(underlay=None, here=None, there=None), "none", "the load could not be read"),
    ],
)
def test_the_limit_is_named_with_its_evidence(found: Figures, code: str, evidence: str) -> None:
    limit = find_limit(found, "to")
    assert limit is not None
    assert (limit.code, evidence in limit.why) == (code, True), limit
    assert evidence in limit.words


def test_what_was_not_measured_has_no_limit() -> None:
    assert find_limit(figures(), "from") is None


def test_loss_counts_in_the_direction_of_the_stream() -> None:
    found = figures()
    found.overlay.datagrams = Datagrams(1000, 1000, [0.001] * 900)  # lost on the way back
    assert getattr(find_limit(found, "to"), "code", "") == "none"
    found.overlay.streams.append(Stream("from", 1, 1.0))
    assert getattr(find_limit(found, "from"), "code", "") == "loss"


def test_datagrams_that_were_not_measured_are_no_evidence() -> None:
    found = figures(again=20)
    found.overlay.datagrams = None
    limit = find_limit(found, "to")
    assert limit is not None
    assert (limit.code, limit.why) == ("loss", "2.0 % of TCP segments sent again")


def test_the_words_name_the_end() -> None:
    assert str(getattr(find_limit(figures(there=FULL), "to"), "words", "")).startswith(
        "CPU there ("
    )
    assert str(getattr(find_limit(figures(), "to"), "words", "")).startswith("nothing obvious (")
