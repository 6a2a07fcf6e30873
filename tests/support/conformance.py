"""What the CNI specification expects of each answer, and how one is judged.

    EXPECTED   situation x verb -> error code of the answer (0: success), for every version that
               knows the verb; the others get code 1

Standard output is the answer of the right form or empty, standard error is empty, the exit code
fits, and the kernel has what the answer says.

References:
    CNI specification 1.1.0, sections 2 and 5, and SPEC.md of 0.3.1, 0.4.0 and 1.0.0.
"""

from __future__ import annotations

from typing import Any

from tests.support.cni import VERSIONS
from tests.support.runtime import Called, Container, Runtime, interfaces, ways_out

SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
KEPT = "cni.dev/valid-attachments"

EXPECTED: dict[str, dict[str, int]] = {
    # The container was never added: DEL and GC have nothing to do, CHECK finds nothing.
    "fresh": {"ADD": 0, "DEL": 0, "CHECK": 104, "GC": 0, "STATUS": 0, "VERSION": 0},
    # It was added: "an interface of the requested name exists" is an error of ADD.
    "added": {"ADD": 103, "DEL": 0, "CHECK": 0, "GC": 0, "STATUS": 0, "VERSION": 0},
    "namespace gone": {"ADD": 3, "DEL": 0, "CHECK": 104, "GC": 0, "STATUS": 0, "VERSION": 0},
    "namespace gone after ADD": {"DEL": 0, "CHECK": 104, "GC": 0, "STATUS": 0, "VERSION": 0},
    "no daemon": {"ADD": 11, "DEL": 0, "CHECK": 11, "GC": 11, "STATUS": 51, "VERSION": 0},
    "not ready": {"ADD": 11, "DEL": 0, "CHECK": 0, "GC": 0, "STATUS": 50, "VERSION": 0},
    "unknown keys": {"ADD": 0, "DEL": 0, "CHECK": 0, "GC": 0, "STATUS": 0, "VERSION": 0},
}

BAD_CONFIGS: dict[str, tuple[str, dict[str, int]]] = {
    "nothing": ("", dict.fromkeys(VERBS[:5], 6) | {"VERSION": 0}),
    "half": ('{"cniVersion": "1.1.0"', dict.fromkeys(VERBS, 6)),
    "a list": ("[]", dict.fromkeys(VERBS, 6)),
    "no version": ('{"name": "pods"}', dict.fromkeys(VERBS[:5], 1) | {"VERSION": 0}),
    "an old version": (
        '{"cniVersion": "0.2.0", "name": "pods"}',
        dict.fromkeys(VERBS[:5], 1) | {"VERSION": 0},
    ),
    "a version to come": (
        '{"cniVersion": "9.0.0", "name": "pods"}',
        dict.fromkeys(VERBS[:5], 1) | {"VERSION": 0},
    ),
    "no name": ('{"cniVersion": "1.1.0"}', dict.fromkeys(VERBS[:5], 7) | {"VERSION": 0}),
    "a bad name": (
        '{"cniVersion": "1.1.0", "name": "a/b"}',
        dict.fromkeys(VERBS[:5], 7) | {"VERSION": 0},
    ),
    "a bad folder": (
        '{"cniVersion": "1.1.0", "name": "pods", "state": "here"}',
        dict.fromkeys(VERBS[:5], 7) | {"VERSION": 0},
    ),
}

BAD_KEYS: dict[str, tuple[dict[str, object], dict[str, int]]] = {
    # What only ADD would do, and what STATUS therefore says.
    "other addresses": ({"ipam": {"type": "host-local"}}, {"ADD": 7, "STATUS": 7}),
    "masquerade": ({"ipMasq": True}, {"ADD": 2, "STATUS": 2}),
    "a hardware address": ({"runtimeConfig": {"mac": "02:00:00:00:00:01"}}, {"ADD": 2}),
    "an address elsewhere": ({"runtimeConfig": {"ips": ["192.0.2.1"]}}, {"ADD": 102}),
    "no address": ({"runtimeConfig": {"ips": ["here"]}}, {"ADD": 7}),
    "half a limit": ({"runtimeConfig": {"bandwidth": {"ingressRate": 8}}}, {"ADD": 7}),
    "half a port": ({"runtimeConfig": {"portMappings": [{"hostPort": 80}]}}, {"ADD": 7}),
    "a foreign result": ({"prevResult": {"ips": 7}}, {"ADD": 6, "CHECK": 104}),
}

BAD_ENVIRONMENTS: dict[str, tuple[dict[str, str | None], dict[str, int]]] = {
    "no container": ({"CNI_CONTAINERID": None}, {"ADD": 4, "DEL": 4, "CHECK": 4}),
    "a bad container": ({"CNI_CONTAINERID": "../x"}, {"ADD": 4, "DEL": 4, "CHECK": 4}),
    "no interface": ({"CNI_IFNAME": ""}, {"ADD": 4, "DEL": 4, "CHECK": 4}),
    "a long interface": ({"CNI_IFNAME": "x" * 16}, {"ADD": 4, "DEL": 4, "CHECK": 4}),
    "an interface with a slash": ({"CNI_IFNAME": "a/b"}, {"ADD": 4, "DEL": 4, "CHECK": 4}),
    "no namespace": ({"CNI_NETNS": None}, {"ADD": 4, "CHECK": 4}),
    "a relative namespace": ({"CNI_NETNS": "web"}, {"ADD": 4, "CHECK": 4}),
    "unknown arguments": ({"CNI_ARGS": "FOO=1"}, {"ADD": 4}),
    "no arguments": ({"CNI_ARGS": "FOO"}, {"ADD": 4}),
    "no verb": ({"CNI_COMMAND": None}, dict.fromkeys(VERBS, 4)),
    "an unknown verb": ({"CNI_COMMAND": "MEND"}, dict.fromkeys(VERBS, 4)),
}


def knows(version: str, verb: str) -> bool:
    return VERSIONS.index(version) >= VERSIONS.index(SINCE.get(verb, VERSIONS[0]))


def judge(called: Called, verb: str, version: str, expected: int) -> None:
    """An answer is of its version's form, whatever it says."""
    assert called.err == "" or verb == "", called.err
    assert called.code == (1 if expected else 0), called.out
    if expected:
        said = called.said
        assert said["code"] == expected, said
        assert said["cniVersion"] in VERSIONS
        assert said["msg"]
        assert "\n" not in said["msg"]
        assert set(said) <= {"cniVersion", "code", "msg", "details"}
    elif verb == "VERSION":
        assert set(called.said) == {"cniVersion", "supportedVersions"}
        assert called.said["supportedVersions"] == list(VERSIONS)
    elif verb != "ADD":
        assert called.out == ""


def judge_result(runtime: Runtime, container: Container, version: str, name: str = "eth0") -> None:
    """A result of ADD is of its version's form, and the kernel has what it says."""
    result = container.results[name]
    assert result["cniVersion"] == version
    host, inside = result["interfaces"][-2:]
    there = interfaces(container)[name]
    assert runtime.host_ends()[host["name"]] == host["mac"]
    assert (inside["name"], inside["sandbox"]) == (name, container.netns)
    assert inside["mac"] == there["address"]
    assert inside.get("mtu") == (there["mtu"] if version == "1.1.0" else None)
    assert {entry["address"] for entry in result["ips"]} <= there["addresses"]
    assert len(result["ips"]) == 2
    for entry in result["ips"]:
        family = "6" if ":" in entry["address"] else "4"
        assert entry.get("version") == (family if version in {"0.3.1", "0.4.0"} else None)
        assert result["interfaces"][entry["interface"]] == inside
        assert (family, entry["gateway"], "eth0") in ways_out(container)
    assert {route["dst"] for route in result["routes"]} == {"0.0.0.0/0", "::/0"}
    assert "dns" in result


def call(
    runtime: Runtime, verb: str, container: Container, version: str, expected: int, **more: Any
) -> Called:
    """One verb with the list, or the previous result, that it needs; judged."""
    if verb == "GC":
        more.setdefault(KEPT, [])
    if verb == "CHECK" and not container.results:
        more.setdefault("prevResult", never_added(container))
    called = runtime.call(verb, container, version, **more)
    judge(called, verb, version, expected if knows(version, verb) else 1)
    return called


def never_added(container: Container) -> dict[str, Any]:
    """A result such as ADD would have answered."""
    return {"interfaces": [{"name": "eth0", "sandbox": container.netns}]}


def add(runtime: Runtime, container: Container, version: str, **more: Any) -> None:
    call(runtime, "ADD", container, version, 0, **more)


def delete(runtime: Runtime, container: Container, version: str, **more: Any) -> None:
    call(runtime, "DEL", container, version, 0, **more)
