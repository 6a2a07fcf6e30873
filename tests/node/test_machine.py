"""Tests of node.machine: what goes to other members, and what is believed of what they say."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from node.config import NodeConfig
from node.control.present import DaemonFacts
from node.hostguard import HostGuard
from node.machine import MOST, machine_facts, read_facts_untrusted, read_sysctls, write_facts
from node.surroundings import Surroundings
from overlay.types import Endpoint
from overlay.wire.messages import FACTS_LIMIT
from tests.node.test_identity import make_node

CLUSTER = make_node().cluster


def here(problems: list[str] | None = None):
    around = Surroundings(NodeConfig(), Endpoint("::", 7), CLUSTER, None)  # type: ignore[arg-type]
    facts = DaemonFacts(epoch=0.0, started=0.0, pid=1, version="0.1.0", offloads=("uso", "tso"))
    assert isinstance(around.guard, HostGuard)
    return machine_facts(NodeConfig(), facts, around, problems or [])


def test_a_machine_is_told_and_read_back() -> None:
    facts = here(["no-path"])
    assert facts["offloads"] == ["tso", "uso"]
    assert facts["problems"] == ["no-path"]
    assert read_facts_untrusted(write_facts(facts)) == facts


def test_whatever_a_node_has_to_say_fits_a_message() -> None:
    many = here([f"{n:-^100}" for n in range(100)])
    assert len(many["problems"]) == MOST  # type: ignore[arg-type]
    text = write_facts({**many, "kernel": "x" * FACTS_LIMIT})
    assert len(text) <= FACTS_LIMIT
    assert read_facts_untrusted(text)["version"] == "0.1.0"


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_nothing_that_a_member_says_is_an_error(text: str) -> None:
    assert read_facts_untrusted(text) == {} or isinstance(json.loads(text), dict)


@given(st.dictionaries(st.text(), st.recursive(st.integers() | st.text(), st.lists)))
def test_only_what_has_the_shape_of_a_fact_is_taken(said: dict[str, object]) -> None:
    for key, value in read_facts_untrusted(json.dumps(said)).items():
        assert said[key] == value
        assert not isinstance(value, list) or all(isinstance(one, str) for one in value)


def test_a_number_beyond_all_measure_is_not_taken() -> None:
    """Else clocks could not be compared, or a table would be pages wide."""
    for number in ("NaN", "Infinity", "-1e999", "1e300", "1" + 400 * "0", f"-{2**63}"):
        assert read_facts_untrusted(f'{{"time":{number},"mtu":1500}}') == {"mtu": 1500}


def test_deep_nesting_is_no_error() -> None:
    assert read_facts_untrusted("[" * 100_000) == {}


def test_a_setting_that_the_kernel_does_not_have_is_left_out(tmp_path) -> None:
    (tmp_path / "net/ipv4").mkdir(parents=True)
    (tmp_path / "net/ipv4/ip_forward").write_text("1\n")
    assert read_sysctls(tmp_path) == {"ip_forward": 1}
