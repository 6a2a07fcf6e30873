"""The specification's forms: versions, names, results, comparisons."""

from __future__ import annotations

import pytest

from node.cni import spec
from node.cni.spec import CniError
from tests.support.cni import POD, POD6, VERSIONS

NETNS = "/run/netns/web"


def code_of(call, *arguments) -> int:
    with pytest.raises(CniError) as caught:
        call(*arguments)
    assert "\n" not in caught.value.msg
    return caught.value.code


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_every_version_of_ours_has_the_old_verbs(version, verb) -> None:
    assert spec.check_version(version, verb) == version


@pytest.mark.parametrize(
    ("verb", "knowing"),
    [("CHECK", VERSIONS[1:]), ("GC", VERSIONS[3:]), ("STATUS", VERSIONS[3:])],
)
def test_newer_verbs_need_newer_versions(verb, knowing) -> None:
    for version in VERSIONS:
        if version in knowing:
            assert spec.check_version(version, verb) == version
        else:
            assert code_of(spec.check_version, version, verb) == spec.INCOMPATIBLE


@pytest.mark.parametrize("version", [None, "", "0.1.0", "0.2.0", "0.3.0", "1.2.0", "2.0.0", "x"])
def test_other_versions_are_incompatible(version) -> None:
    assert code_of(spec.check_version, version, "ADD") == spec.INCOMPATIBLE


def test_a_version_that_is_no_text_is_undecodable() -> None:
    assert code_of(spec.check_version, 1.1, "ADD") == spec.UNDECODABLE


@pytest.mark.parametrize("version", VERSIONS)
def test_results_have_the_form_of_their_version(version) -> None:
    result = spec.add_result(version, POD6, NETNS, {}, {})
    old, newest = version in {"0.3.1", "0.4.0"}, version == "1.1.0"
    assert result["cniVersion"] == version
    host, inside = result["interfaces"]
    assert (host["name"], host["mac"]) == (POD["link"], POD["link_mac"])
    assert "sandbox" not in host
    assert (inside["name"], inside["mac"], inside["sandbox"]) == ("eth0", POD["mac"], NETNS)
    assert ("mtu" in host, "mtu" in inside) == (newest, newest)
    assert [entry["address"] for entry in result["ips"]] == ["10.244.1.5/32", "fd00::5/128"]
    assert [entry["gateway"] for entry in result["ips"]] == ["169.254.1.1", "fe80::1"]
    assert {entry["interface"] for entry in result["ips"]} == {1}
    assert [entry.get("version") for entry in result["ips"]] == (["4", "6"] if old else [None] * 2)
    assert result["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
        {"dst": "::/0", "gw": "fe80::1"},
    ]
    assert result["dns"] == {}


def test_a_pod_of_one_family_has_one_address_and_one_route() -> None:
    result = spec.add_result("1.1.0", POD, NETNS, {}, {"nameservers": ["10.244.0.10"]})
    assert len(result["ips"]) == len(result["routes"]) == 1
    assert result["dns"] == {"nameservers": ["10.244.0.10"]}


def test_what_was_before_stays_and_indices_point_behind_it() -> None:
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "dummy0", "sandbox": NETNS, "theirs": 1}],
        "ips": [{"address": "192.0.2.7/24", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}],
        "dns": {"search": ["theirs.example"]},
        "unknown": {"kept": True},
    }
    result = spec.add_result("1.1.0", POD, NETNS, previous, {})
    assert result["interfaces"][0] == previous["interfaces"][0]
    assert result["ips"][0] == previous["ips"][0]
    assert result["ips"][1]["interface"] == 2
    assert result["interfaces"][2]["name"] == "eth0"
    assert result["routes"] == previous["routes"]  # theirs leads out already
    assert (result["dns"], result["unknown"]) == (previous["dns"], {"kept": True})
    assert len(previous["interfaces"]) == 1


@pytest.mark.parametrize("key", ["interfaces", "ips", "routes"])
@pytest.mark.parametrize("wrong", ["text", {"a": 1}, [1]])
def test_a_previous_result_of_another_form_is_undecodable(key, wrong) -> None:
    arguments = ("1.1.0", POD, NETNS, {key: wrong}, {})
    assert code_of(spec.add_result, *arguments) == spec.UNDECODABLE


@pytest.mark.parametrize("version", VERSIONS)
def test_what_add_answered_passes_the_check(version) -> None:
    result = spec.add_result(version, POD6, NETNS, {}, {})
    result["routes"] = []  # a later plugin may have taken them
    result["interfaces"][1]["mac"] = "02:00:00:00:00:99"
    spec.check_against(POD6, result, "eth0", NETNS)


def test_an_address_in_one_of_the_books_only_fails_the_check() -> None:
    result = spec.add_result("1.0.0", POD, NETNS, {}, {})
    other = {**POD, "address": "10.244.1.6"}
    assert code_of(spec.check_against, other, result, "eth0", NETNS) == spec.NOT_AS_ADDED
    assert code_of(spec.check_against, POD6, result, "eth0", NETNS) == spec.NOT_AS_ADDED


@pytest.mark.parametrize(("interface", "netns"), [("eth1", NETNS), ("eth0", "/run/netns/other")])
def test_a_previous_result_of_something_else_fails_the_check(interface, netns) -> None:
    result = spec.add_result("1.0.0", POD, NETNS, {}, {})
    assert code_of(spec.check_against, POD, result, interface, netns) == spec.BAD_CONFIG


def test_addresses_of_other_plugins_are_not_ours_to_check() -> None:
    previous = {"interfaces": [{"name": "net1", "sandbox": NETNS}], "ips": [{"interface": 0}]}
    result = spec.add_result("1.0.0", POD, NETNS, previous, {})
    spec.check_against(POD, result, "eth0", NETNS)


@pytest.mark.parametrize("name", ["a b", "a\tb", "a:b", "a/b", ".", "..", "", "x" * 16, "a\nb"])
def test_names_that_linux_would_refuse_are_no_interfaces(name) -> None:
    assert not spec.is_interface(name)


def test_an_error_names_version_code_and_reason() -> None:
    error = CniError(7, "because", "do this")
    assert spec.error_object("1.0.0", error) == {
        "cniVersion": "1.0.0",
        "code": 7,
        "msg": "because",
        "details": "do this",
    }
    assert "details" not in spec.error_object("1.0.0", CniError(7, "because"))


@pytest.mark.parametrize("asked", ["0.2.0", "0.4.0", "1.1.0"])
def test_the_version_is_told_in_the_version_it_was_asked_in(asked) -> None:
    assert spec.version_object(asked) == {
        "cniVersion": asked,
        "supportedVersions": list(VERSIONS),
    }
    assert spec.version_object("no version")["cniVersion"] == "1.1.0"
