"""The CNI specification, line by line, against the installed plugin and a real daemon.

What is expected stands in `tests.support.conformance`. After each call, the answer is of the right
form, and the kernel has what it says and nothing else.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.cni import notes
from node.kernel import netns
from tests.support.cni import VERSIONS
from tests.support.conformance import (
    BAD_CONFIGS,
    BAD_ENVIRONMENTS,
    BAD_KEYS,
    EXPECTED,
    KEPT,
    VERBS,
    add,
    call,
    delete,
    judge,
    judge_result,
    knows,
    never_added,
)
from tests.support.machines import Machine, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.runtime import Container, Runtime, interfaces
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

CIDR6 = ("--cidr6", "fd6d:7573:6c69::/56")
SOON = 30.0


@pytest.fixture(scope="module")
def machine(make_module_yard: YardMaker) -> Machine:
    """One node of both families."""
    return make_module_yard(1).found(*CIDR6)


@pytest.fixture(scope="module")
def runtime(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(machine, tmp_path_factory.mktemp("cni"))


@pytest.fixture
def nothing_left(runtime: Runtime) -> Iterator[None]:
    """A test deletes what it adds, and DEL leaves nothing."""
    yield
    left = runtime.pods()
    for container, interface in left:  # the next test is not to blame
        runtime.machine.ask("pod.del", container=container, interface=interface)
    assert left == {}
    assert runtime.host_ends() == {}


# -- the table -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.usefixtures("nothing_left")
def test_fresh(runtime: Runtime, verb: str, version: str) -> None:
    with runtime.container() as container:
        call(runtime, verb, container, version, EXPECTED["fresh"][verb])
        if verb == "ADD":
            judge_result(runtime, container, version)
            delete(runtime, container, version)
        assert interfaces(container) == {}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.usefixtures("nothing_left")
def test_repeated(runtime: Runtime, verb: str, version: str) -> None:
    """Each verb twice for a container that was added."""
    with runtime.container() as container:
        add(runtime, container, version)
        kept = [{"containerID": container.id, "ifname": "eth0"}]
        for _ in range(2):
            call(runtime, verb, container, version, EXPECTED["added"][verb], **{KEPT: kept})
        if verb == "DEL":
            assert interfaces(container) == {}
        else:
            judge_result(runtime, container, version)
            delete(runtime, container, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.usefixtures("nothing_left")
def test_parallel(runtime: Runtime, version: str) -> None:
    """Verbs of several containers at once, and of one container at once."""
    with runtime.containers(4) as containers:
        one = containers[0]
        added = runtime.at_once([("ADD", each) for each in (*containers, one)], version=version)
        for called in added[1:4]:
            judge(called, "ADD", version, 0)
        assert sorted(called.error for called in (added[0], added[4])) == [0, 103]
        for each in containers:
            judge_result(runtime, each, version)
        addresses = {
            result["ips"][0]["address"] for c in containers for result in c.results.values()
        }
        assert len(addresses) == 4
        mixed: list[tuple[str, Container | None]] = [
            ("DEL", one),
            ("DEL", one),
            ("DEL", containers[1]),
            ("CHECK", containers[2]),
            ("STATUS", None),
            ("VERSION", None),
        ]
        for (verb, _), called in zip(mixed, runtime.at_once(mixed, version=version), strict=True):
            judge(called, verb, version, 0 if knows(version, verb) else 1)
        assert interfaces(one) == interfaces(containers[1]) == {}
        for each in containers[2:]:
            delete(runtime, each, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.usefixtures("nothing_left")
def test_the_namespace_is_gone(runtime: Runtime, verb: str, version: str) -> None:
    with runtime.container() as container:
        netns.delete(Path(container.netns).name)
        call(runtime, verb, container, version, EXPECTED["namespace gone"][verb])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS", "VERSION"])
@pytest.mark.usefixtures("nothing_left")
def test_the_namespace_goes_after_add(runtime: Runtime, verb: str, version: str) -> None:
    with runtime.container() as container:
        add(runtime, container, version)
        netns.delete(Path(container.netns).name)
        call(runtime, verb, container, version, EXPECTED["namespace gone after ADD"][verb])
        delete(runtime, container, version, environ={"CNI_NETNS": None})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.usefixtures("nothing_left")
def test_no_daemon(runtime: Runtime, machine: Machine, version: str) -> None:
    """DEL succeeds nevertheless, and the next daemon frees what was deleted, before it adds."""
    table = EXPECTED["no daemon"]
    with runtime.containers(3) as (deleted, kept, new):
        for container in (deleted, kept):
            add(runtime, container, version)
        with no_daemon(machine):
            for verb in VERBS:
                about = new if verb == "ADD" else deleted if verb == "DEL" else kept
                for _ in range(2):
                    call(runtime, verb, about, version, table[verb])
            assert interfaces(new) == {}
            # Without the previous result the plugin does not know which link it was.
            assert bool(interfaces(deleted)) == (version == "0.3.1")
            assert interfaces(kept)
        # It answers before it is done with its notes; pods that are added wait for that.
        eventually(lambda: list(notes.found(str(machine.state))) == [], within=SOON)
        assert set(runtime.pods()) == {(kept.id, "eth0")}
        assert interfaces(deleted) == {}
        judge_result(runtime, kept, version)
        add(runtime, deleted, version)  # the same container again: no old note deletes it
        judge_result(runtime, deleted, version)
        for container in (deleted, kept):
            delete(runtime, container, version)


@contextmanager
def no_daemon(machine: Machine) -> Iterator[None]:
    machine.stop(signal.SIGKILL)
    try:
        yield
    finally:
        machine.up()


@pytest.mark.parametrize("version", VERSIONS)
def test_not_ready(small: Runtime, version: str) -> None:
    """Every address is taken."""
    with small.containers(2) as (there, new), one_free_address(small.machine):
        add(small, there, version)
        for verb in ("ADD", "CHECK", "STATUS", "VERSION", "DEL", "GC"):
            about = new if verb == "ADD" else there
            call(small, verb, about, version, EXPECTED["not ready"][verb])
        assert interfaces(new) == {}


@pytest.fixture(scope="module")
def small(make_module_yard: YardMaker, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A node with two addresses that are not held."""
    yard = make_module_yard(1)
    yard.info.settings["MUSLIN_QUARANTINE"] = "1"
    machine = yard.found("--cidr", "10.244.0.0/26", "--block-prefix", "27", *CIDR6)
    held = []
    while machine.ask("pod.ready")["ready"]:
        held.append(machine.ask("address.reserve", owner="test")["address"])
    for address in held[-2:]:
        machine.ask("address.release", owner="test", address=address)
    return Runtime(machine, tmp_path_factory.mktemp("small"))


@contextmanager
def one_free_address(machine: Machine) -> Iterator[None]:
    """Two addresses can be had as soon as the former test's have rested; one of them is taken."""
    eventually(lambda: machine.ask("pod.ready")["ready"], within=SOON)
    held = machine.ask("address.reserve", owner="test")["address"]
    try:
        eventually(lambda: machine.ask("pod.ready")["ready"], within=SOON)
        yield
    finally:
        machine.ask("address.release", owner="test", address=held)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.usefixtures("nothing_left")
def test_unknown_keys(runtime: Runtime, version: str) -> None:
    """Are ignored in the configuration, and in the arguments if they say so."""
    more: dict[str, Any] = {
        "environ": {"CNI_ARGS": "IgnoreUnknown=1;WHATEVER=1", "CNI_WHATEVER": "1"},
        "whatever": {"a": [1, None]},
        "runtimeConfig": {"aliases": ["web"], "whatever": 1},
        "args": {"cni": {"whatever": 1}, "other": {}},
    }
    with runtime.container() as container:
        for verb in ("ADD", "CHECK", "GC", "STATUS", "VERSION", "DEL"):
            kept = {KEPT: [{"containerID": container.id, "ifname": "eth0", "whatever": 1}]}
            call(runtime, verb, container, version, EXPECTED["unknown keys"][verb], **kept, **more)


@pytest.mark.parametrize("name", BAD_CONFIGS)
@pytest.mark.usefixtures("nothing_left")
def test_a_bad_configuration(runtime: Runtime, name: str) -> None:
    given, expected = BAD_CONFIGS[name]
    with runtime.container() as container:
        for verb in VERBS:
            called = runtime.call(verb, container, given=given)
            judge(called, verb, "1.1.0", expected[verb])
        assert interfaces(container) == {}


@pytest.mark.parametrize("name", BAD_KEYS)
@pytest.mark.usefixtures("nothing_left")
def test_a_bad_key(runtime: Runtime, name: str) -> None:
    """Is an error of the verb that would need it, and does not keep DEL from its work."""
    more, expected = BAD_KEYS[name]
    with runtime.container() as container:
        for verb in VERBS:
            code = expected.get(verb, EXPECTED["fresh"][verb])
            call(runtime, verb, container, "1.1.0", code, **more)
        assert interfaces(container) == {}


@pytest.mark.parametrize("name", BAD_ENVIRONMENTS)
@pytest.mark.usefixtures("nothing_left")
def test_a_bad_environment(runtime: Runtime, name: str) -> None:
    changed, expected = BAD_ENVIRONMENTS[name]
    with runtime.container() as container:
        for verb in VERBS:
            said = {KEPT: [], "prevResult": never_added(container)}
            called = runtime.call(verb, container, environ=changed, **said)
            spoken = "" if name == "no verb" else verb  # a person is helped on standard error
            judge(called, spoken, "1.1.0", expected.get(verb, EXPECTED["fresh"][verb]))
            if expected.get(verb) == 4:
                assert next(iter(changed)) in called.said["msg"]
        assert interfaces(container) == {}


# -- and what the table does not say ---------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
def test_gc_takes_what_is_not_listed_and_nothing_else(runtime: Runtime, machine: Machine) -> None:
    machine.ask("pod.add", name="person")
    try:
        with runtime.containers(3) as containers:
            for container in containers:
                add(runtime, container, "1.1.0")
            kept = [{"containerID": containers[1].id, "ifname": "eth0"}]
            call(runtime, "GC", containers[1], "1.1.0", 0, **{KEPT: kept})
            assert set(runtime.pods()) == {(containers[1].id, "eth0")}
            assert [bool(interfaces(each)) for each in containers] == [False, True, False]
            call(runtime, "GC", containers[1], "1.1.0", 0, name="other", **{KEPT: []})
            assert set(runtime.pods()) == {(containers[1].id, "eth0")}
            without = runtime.call("GC", None)
            judge(without, "GC", "1.1.0", 7)
            call(runtime, "GC", containers[1], "1.1.0", 0, **{KEPT: None})
        assert "person" in {row["name"] for row in machine.get("pods")}
    finally:
        machine.ask("pod.del", name="person")


@pytest.mark.usefixtures("nothing_left")
def test_several_interfaces_of_a_container(runtime: Runtime) -> None:
    with runtime.container() as container:
        for name in ("eth0", "net1"):
            add(runtime, container, "1.1.0", interface=name)
            judge(runtime.call("CHECK", container, interface=name), "CHECK", "1.1.0", 0)
        assert set(interfaces(container)) == {"eth0", "net1"}
        delete(runtime, container, "1.1.0", interface="eth0")
        assert set(interfaces(container)) == {"net1"}
        judge(runtime.call("CHECK", container, interface="net1"), "CHECK", "1.1.0", 0)
        delete(runtime, container, "1.1.0", interface="net1")


@pytest.mark.usefixtures("nothing_left")
def test_a_second_network_is_refused_and_its_del_spares_the_first(runtime: Runtime) -> None:
    with runtime.container() as container:
        add(runtime, container, "1.1.0")
        refused = runtime.call("ADD", container, name="other", interface="net1")
        judge(refused, "ADD", "1.1.0", 7)
        assert "one pod network" in refused.said["msg"]
        judge(runtime.call("DEL", container, name="other", interface="net1"), "DEL", "1.1.0", 0)
        judge(runtime.call("DEL", container, name="other"), "DEL", "1.1.0", 0)
        judge_result(runtime, container, "1.1.0")
        delete(runtime, container, "1.1.0")


@pytest.mark.usefixtures("nothing_left")
def test_an_interface_that_is_there_already_is_an_error(runtime: Runtime) -> None:
    with runtime.container() as container:
        netns.run_in(container.netns, os.system, "ip link add eth0 type veth peer name x0")
        called = runtime.call("ADD", container)
        judge(called, "ADD", "1.1.0", 4)
        assert set(interfaces(container)) == {"eth0", "x0"}


@pytest.mark.usefixtures("nothing_left")
def test_the_nodes_own_namespace_is_refused(runtime: Runtime, machine: Machine) -> None:
    with runtime.container() as container:
        container.netns = f"/run/netns/{machine.netns.rpartition('/')[2]}"
        judge(runtime.call("ADD", container), "ADD", "1.1.0", 3)


@pytest.mark.usefixtures("nothing_left")
def test_a_fixed_address_and_a_name_and_a_limit(runtime: Runtime) -> None:
    with runtime.containers(2) as (first, second):
        add(runtime, first, "1.1.0")
        wanted = first.results["eth0"]["ips"][0]["address"]
        asked = {"runtimeConfig": {"ips": [wanted]}}
        judge(runtime.call("ADD", second, **asked), "ADD", "1.1.0", 102)
        other = far_address(wanted)
        bandwidth = {"ingressRate": 8_000_000, "ingressBurst": 800_000}
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;IP={other}"
        more: dict[str, Any] = {"runtimeConfig": {"bandwidth": bandwidth}}
        add(runtime, second, "1.1.0", environ={"CNI_ARGS": arguments}, **more)
        pod = runtime.pods()[second.id, "eth0"]
        assert (pod["name"], pod["address"]) == ("shop-web-0", other)
        assert pod["ingress"] == {"bits": 8_000_000, "burst": 800_000}
        assert pod["labels"] == {"namespace": "shop", "pod": "web-0"}
        for container in (first, second):
            delete(runtime, container, "1.1.0")


def far_address(address: str) -> str:
    """One of the same block that no test has had: the lowest are given first. Without a length."""
    return f"{address.partition('/')[0].rpartition('.')[0]}.250"


@pytest.mark.usefixtures("nothing_left")
def test_check_sees_what_is_broken_and_cannot_be_mended(runtime: Runtime) -> None:
    with runtime.container() as container:
        add(runtime, container, "1.1.0")
        result = container.results["eth0"]
        wrong = {**result, "ips": [{**result["ips"][0], "address": "10.9.9.9/32"}]}
        judge(runtime.call("CHECK", container, prevResult=wrong), "CHECK", "1.1.0", 104)
        judge(runtime.call("CHECK", container, given=json.dumps({})), "CHECK", "1.1.0", 1)
        delete(runtime, container, "1.1.0")
