"""What a runtime says becomes what the daemon is asked, or a refusal that names the key."""

from __future__ import annotations

import pytest

from node.cni import request, spec
from node.cni.request import Attachment
from node.cni.spec import CniError
from tests.support.cni import config, environment

WEB = Attachment("c0ffee01", "eth0", "/run/netns/web")


def refused(call, *arguments) -> CniError:
    with pytest.raises(CniError) as caught:
        call(*arguments)
    return caught.value


def params(arguments: str = "", **more: object) -> dict[str, object]:
    return request.add_params(config(**more), WEB, arguments)


def test_an_attachment_is_asked_for_by_its_names() -> None:
    assert params() == {
        "owner": "cni",
        "container": "c0ffee01",
        "interface": "eth0",
        "netns": "/run/netns/web",
        "network": "pods",
        "labels": {},
    }


@pytest.mark.parametrize("verb", ["", "add", "UPDATE"])
def test_an_unknown_verb_is_refused(verb) -> None:
    error = refused(request.verb_of, {"CNI_COMMAND": verb})
    assert error.code == spec.BAD_ENVIRONMENT
    assert "CNI_COMMAND" in error.msg


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_every_missing_variable_is_named(verb) -> None:
    error = refused(request.attachment_of, {}, verb)
    assert error.code == spec.BAD_ENVIRONMENT
    needed = {"CNI_CONTAINERID", "CNI_IFNAME"} | ({"CNI_NETNS"} if verb != "DEL" else set())
    assert {word for word in error.msg.replace(",", " ").split() if "_" in word} == needed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CNI_CONTAINERID", "-x"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_IFNAME", "eth 0"),
        ("CNI_IFNAME", "x" * 16),
        ("CNI_NETNS", "web"),
    ],
)
def test_a_wrong_variable_is_named(name, value) -> None:
    error = refused(request.attachment_of, environment("ADD", **{name: value}), "ADD")
    assert error.code == spec.BAD_ENVIRONMENT
    assert name in error.msg


@pytest.mark.parametrize("verb", ["GC", "STATUS", "VERSION"])
def test_verbs_of_the_network_need_no_container(verb) -> None:
    assert request.attachment_of({}, verb).container == ""


@pytest.mark.parametrize("name", [None, "", 7, "a/b", "-a", "a b"])
def test_a_network_needs_a_name(name) -> None:
    assert refused(request.network_of, {"name": name}).code == spec.BAD_CONFIG


def test_the_folder_is_of_the_configuration_then_the_environment() -> None:
    assert request.state_of({}, {}) == "/var/lib/muslin"
    assert request.state_of({}, {"MUSLIN_STATE": "/srv/a"}) == "/srv/a"
    assert request.state_of({"state": "/srv/b"}, {"MUSLIN_STATE": "/srv/a"}) == "/srv/b"
    for wrong in ("srv", 7, "", "/a\0b"):
        assert refused(request.state_of, {"state": wrong}, {}).code == spec.BAD_CONFIG


def test_a_pod_of_kubernetes_is_labelled() -> None:
    said = (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u-1;"
        "K8S_POD_INFRA_CONTAINER_ID=c0ffee01;OTHER=x"
    )
    assert params(said)["labels"] == {
        "namespace": "shop",
        "pod": "web-0",
        "uid": "u-1",
        "sandbox": "c0ffee01",
    }


def test_labels_of_the_configuration_are_told_as_far_as_they_can_be() -> None:
    labels = [
        {"key": "app", "value": "web"},
        {"key": "pod", "value": "mine"},
        {"key": "long", "value": "x" * 300},
        {"key": "number", "value": 7},
        "nothing",
        *({"key": f"k{i}", "value": "v"} for i in range(40)),
    ]
    told = params("K8S_POD_NAME=web-0", args={"cni": {"labels": labels}})["labels"]
    assert told["app"] == "web"
    assert told["pod"] == "web-0"
    assert "long" not in told
    assert "number" not in told
    assert len(told) == request.MOST_LABELS


def test_unknown_arguments_are_refused_unless_they_may_be_ignored() -> None:
    error = refused(params, "FOO=1;BAR=2")
    assert error.code == spec.BAD_ENVIRONMENT
    assert "BAR, FOO" in error.msg
    assert refused(params, "IgnoreUnknown=0;FOO=1").code == spec.BAD_ENVIRONMENT
    assert refused(params, "FOO").code == spec.BAD_ENVIRONMENT
    assert params("IgnoreUnknown=TRUE;FOO=1;")["labels"] == {}


@pytest.mark.parametrize(
    ("more", "arguments", "wanted"),
    [
        ({"runtimeConfig": {"ips": ["10.244.1.9"]}}, "", {"ip": "10.244.1.9"}),
        (
            {"runtimeConfig": {"ips": ["10.244.1.9/24", "fd00::9/64"]}},
            "",
            {"ip": "10.244.1.9", "ip6": "fd00::9"},
        ),
        ({"args": {"cni": {"ips": ["fd00::9"]}}}, "", {"ip6": "fd00::9"}),
        ({}, "IP=10.244.1.9,fd00::9", {"ip": "10.244.1.9", "ip6": "fd00::9"}),
        (
            {"runtimeConfig": {"ips": ["10.244.1.8"]}, "args": {"cni": {"ips": ["10.244.1.9"]}}},
            "IP=10.244.1.7",
            {"ip": "10.244.1.8"},
        ),
    ],
)
def test_addresses_are_asked_for_in_three_ways(more, arguments, wanted) -> None:
    found = params(arguments, **more)
    assert {key: found.get(key) for key in ("ip", "ip6") if key in found} == wanted


def test_two_addresses_of_a_family_are_refused() -> None:
    error = refused(lambda: params(runtimeConfig={"ips": ["10.0.0.1", "10.0.0.2"]}))
    assert error.code == spec.BAD_CONFIG
    assert refused(lambda: params(runtimeConfig={"ips": "x"})).code == spec.UNDECODABLE


@pytest.mark.parametrize("key", ["mac", "ipRanges", "deviceID", "infinibandGUID"])
def test_what_cannot_be_granted_is_named_with_its_value(key) -> None:
    error = refused(lambda: params(runtimeConfig={key: "c2:11:22:33:44:55"}))
    assert error.code == spec.UNSUPPORTED
    assert key in error.msg
    assert "c2:11:22:33:44:55" in error.msg
    assert params(runtimeConfig={key: None}) == params()


def test_a_hardware_address_in_the_arguments_is_refused_as_well() -> None:
    error = refused(params, "IgnoreUnknown=1;MAC=c2:11:22:33:44:55")
    assert error.code == spec.UNSUPPORTED


@pytest.mark.parametrize("kind", ["host-local", "dhcp", 7])
def test_addresses_of_another_plugin_are_refused(kind) -> None:
    error = refused(lambda: params(ipam={"type": kind}))
    assert error.code == spec.BAD_CONFIG
    assert "ipam" in error.msg


@pytest.mark.parametrize("ipam", [{}, {"type": ""}, {"type": "muslin"}, None])
def test_addresses_of_ours_may_be_named(ipam) -> None:
    assert params(ipam=ipam) == params()


def test_masquerade_is_the_nodes_setting() -> None:
    error = refused(lambda: params(ipMasq=True))
    assert error.code == spec.UNSUPPORTED
    assert "ipMasq true" in error.msg
    assert params(ipMasq=False) == params()


def test_unknown_keys_are_ignored() -> None:
    more = {"runtimeConfig": {"aliases": ["a"], "cgroupPath": "/x"}, "whatever": [1], "args": {}}
    assert params(**more) == params()


def test_limits_are_passed_on_in_bits() -> None:
    bandwidth = {
        "ingressRate": 8_000_000,
        "ingressBurst": 80_000,
        "egressRate": 0,
        "egressBurst": 0,
    }
    found = params(runtimeConfig={"bandwidth": bandwidth})
    assert found["ingress"] == {"bits": 8_000_000, "burst": 80_000}
    assert "egress" not in found


@pytest.mark.parametrize(
    "wrong",
    [
        {"ingressRate": 8},
        {"egressBurst": 8},
        {"ingressRate": -8, "ingressBurst": 8},
        {"ingressRate": "8", "ingressBurst": 8},
        {"ingressRate": True, "ingressBurst": 8},
        {"ingressRate": 1.5, "ingressBurst": 8},
    ],
)
def test_half_a_limit_is_none(wrong) -> None:
    error = refused(lambda: params(runtimeConfig={"bandwidth": wrong}))
    assert error.code == spec.BAD_CONFIG


def test_ports_are_opened_once_for_all_families() -> None:
    mappings = [
        {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "0.0.0.0"},
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "::"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "2001:DB8::0:1"},
        {"hostPort": 9, "containerPort": 9},
    ]
    assert params(runtimeConfig={"portMappings": mappings})["ports"] == [
        {"protocol": "tcp", "host_port": 8080, "port": 80, "host": ""},
        {"protocol": "udp", "host_port": 53, "port": 5353, "host": "2001:db8::1"},
        {"protocol": "tcp", "host_port": 9, "port": 9, "host": ""},
    ]


def test_what_containerd_says_in_its_own_spelling_is_understood() -> None:
    asked = {
        "portMappings": [
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "10.0.0.1"}
        ],
        "bandwidth": {"IngressRate": 0, "IngressBurst": 0, "EgressRate": 8, "EgressBurst": 16},
        "dns": {"Servers": ["10.0.0.2"], "Searches": None, "Options": []},
    }
    said = params(runtimeConfig=asked)
    assert said["ports"] == [{"protocol": "tcp", "host_port": 8080, "port": 80, "host": "10.0.0.1"}]
    assert said["egress"] == {"bits": 8, "burst": 16}
    assert "ingress" not in said
    assert request.dns_of(config(runtimeConfig=asked)) == {"nameservers": ["10.0.0.2"]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"containerPort": 80},
        {"hostPort": 0, "containerPort": 80},
        {"hostPort": 80, "containerPort": -1},
        {"hostPort": 80, "containerPort": 80, "hostIP": "here"},
        {"hostPort": 80, "containerPort": 80, "hostIP": "::1%x\nflush ruleset"},
    ],
)
def test_a_port_that_is_none_is_refused(wrong) -> None:
    error = refused(lambda: params(runtimeConfig={"portMappings": [wrong]}))
    assert error.code == spec.BAD_CONFIG


def test_name_servers_are_the_runtimes_if_it_says_some() -> None:
    given = config(
        dns={"nameservers": ["10.0.0.1"], "domain": "a.example"},
        runtimeConfig={"dns": {"servers": ["10.0.0.2"], "searches": ["b.example"]}},
    )
    assert request.dns_of(given) == {
        "nameservers": ["10.0.0.2"],
        "domain": "a.example",
        "search": ["b.example"],
    }
    assert request.dns_of(config()) == {}


@pytest.mark.parametrize("key", request.ATTACHMENTS)
def test_a_list_says_what_is_kept(key) -> None:
    listed = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "net1"}]
    assert request.kept_by({key: listed}) == [["a", "eth0"], ["b", "net1"]]
    assert request.kept_by({key: []}) == request.kept_by({key: None}) == []


def test_no_list_is_not_an_empty_one() -> None:
    error = refused(request.kept_by, {})
    assert error.code == spec.BAD_CONFIG
    assert "cni.dev/valid-attachments" in error.msg
    entry = {request.ATTACHMENTS[0]: [{"containerID": "a"}]}
    assert refused(request.kept_by, entry).code == spec.BAD_CONFIG
