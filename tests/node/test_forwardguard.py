"""Tests of node.forwardguard: which packet filters of a machine are in the way of pods."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import pytest

from node import forwardguard
from node.forwardguard import Chain, ForwardGuard, dropping_chains

TUN = "muslin0"


def chains(*found: tuple[str, str, str, dict[str, str]]) -> str:
    entries = [
        {"chain": {"family": family, "table": table, "name": name} | more}
        for family, table, name, more in found
    ]
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *entries]})


DROPS = {"hook": "forward", "policy": "drop"}
DOCKER = ("ip", "filter", "FORWARD", DROPS)


class Listed:
    """A packet filter that lists what a test says."""

    def __init__(self, listed: str, rules: str = "table {}") -> None:
        self.listed, self.rules = listed, rules

    def listing(self, *words: str) -> str:
        return self.listed if "chains" in words else self.rules


def looked(listed: str, rules: str = "table {}") -> tuple[ForwardGuard, Listed]:
    firewall = Listed(listed, rules)
    guard = ForwardGuard(TUN, firewall)
    guard.look(None)
    guard.close()
    return guard, firewall


@pytest.mark.parametrize(
    "other",
    [
        ("ip", "filter", "FORWARD", {"hook": "forward", "policy": "accept"}),
        ("ip", "filter", "INPUT", {"hook": "input", "policy": "drop"}),
        ("ip", "filter", "DOCKER-USER", {}),
        ("bridge", "filter", "FORWARD", DROPS),
        ("inet", "muslin", "forward", DROPS),
    ],
    ids=["accepts", "not forwarded", "no base chain", "bridged", "ours"],
)
def test_only_others_chains_that_drop_what_is_forwarded_count(other) -> None:
    assert list(dropping_chains(chains(other, DOCKER))) == [Chain("ip", "filter", "FORWARD")]


def test_where_nothing_is_listed_nothing_is_found() -> None:
    assert list(dropping_chains("")) == []


def test_a_chain_that_drops_is_named_with_the_commands_that_help() -> None:
    guard, _ = looked(chains(DOCKER, ("inet", "mine", "pass", DROPS)))
    of_docker, of_mine = guard.problems
    assert of_docker.code == "forward-dropped"
    assert "chain FORWARD of nft's table ip filter" in of_docker.why
    assert of_docker.fix == (
        "iptables -I FORWARD -i mus+ -j ACCEPT && iptables -I FORWARD -o mus+ -j ACCEPT"
    )
    assert of_mine.fix.startswith("nft insert rule inet mine pass iifname '\"mus*\"' accept && ")


@pytest.mark.parametrize("name", ["mus*", TUN])
def test_a_table_that_names_our_interfaces_is_settled(name: str) -> None:
    guard, _ = looked(chains(DOCKER), f'iifname "{name}" counter accept')
    assert guard.problems == ()


def test_rules_are_read_when_they_changed_and_not_otherwise(monkeypatch) -> None:
    heard: list[bool] = []
    watch = SimpleNamespace(changed=lambda: heard.pop(), close=lambda: heard.append(True))
    monkeypatch.setattr(forwardguard, "KernelWatch", lambda *of: watch)
    firewall = Listed(chains(DOCKER))
    guard = ForwardGuard(TUN, firewall)
    guard.look(None)
    firewall.listed = chains()
    heard.append(False)
    guard.look(None)
    assert len(guard.problems) == 1
    heard.append(True)
    guard.look(None)
    assert guard.problems == ()
    guard.close()
    assert heard == [True]


@pytest.mark.parametrize("failing", ["listed", "rules"])
def test_where_it_could_not_be_asked_nothing_is_new_and_it_is_asked_again(
    monkeypatch, failing: str
) -> None:
    changes = [False, False, True]
    watch = SimpleNamespace(changed=changes.pop, close=lambda: None)
    monkeypatch.setattr(forwardguard, "KernelWatch", lambda *of: watch)
    firewall = Listed(chains(DOCKER))
    guard = ForwardGuard(TUN, firewall)
    guard.look(None)
    (before,) = guard.problems
    good, settled = getattr(firewall, failing), f'iifname "{TUN}" counter accept'
    firewall.rules = settled
    setattr(firewall, failing, "")
    guard.look(None)  # it has changed, and nft fails
    assert guard.problems == (before,)
    setattr(firewall, failing, good if failing == "listed" else settled)
    guard.look(None)
    assert guard.problems == ()


def test_a_kernel_without_packet_filters_is_no_error(monkeypatch) -> None:
    def refuse(*of: int) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "not supported")

    monkeypatch.setattr(forwardguard, "KernelWatch", refuse)
    guard, _ = looked(chains(DOCKER))
    assert guard.problems == ()
