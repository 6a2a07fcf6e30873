"""What the CNI specification says, as values and functions without any input or output.

    code  meaning
    ----  ---------------------------------------------------------------------------------------
       1  the configuration's version is not one of ours, or does not know the verb
       2  a field that cannot be granted (its key and value are in the message)
       3  the container does not exist: nothing has to be cleaned up
       4  CNI_... variables that are missing or wrong (their names are in the message)
       5  the configuration cannot be read
       6  the configuration is not JSON, or not of the specification's form
       7  the configuration says something that cannot be
      11  try again later: no daemon, a busy one, no free address
      50  STATUS: no container can be added
      51  STATUS: neither that, nor may the present ones reach everything
     100  the daemon refused or failed; its reason is in the message
     101  the daemon does not let this user in
     102  the address that was asked for is not to be had
     103  there is such an attachment already
     104  CHECK: something is not as ADD left it
     105  the daemon is of another version than the plugin
     199  a defect of the plugin

References:
    CNI specification 1.1.0, sections 2 (execution protocol) and 5 (result types); SPEC.md of the
    older versions for their results. Codes below 100 are the specification's.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json = dict[str, object]

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""What the plugin speaks, oldest first."""

NEWEST = VERSIONS[-1]
WITH_IP_VERSION = ("0.3.1", "0.4.0")
"""Versions whose addresses say their family."""

SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""The first version that knows a verb; the others are as old as ours."""

VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")

INCOMPATIBLE = 1
UNSUPPORTED = 2
UNKNOWN_CONTAINER = 3
BAD_ENVIRONMENT = 4
IO_FAILURE = 5
UNDECODABLE = 6
BAD_CONFIG = 7
TRY_LATER = 11
NOT_AVAILABLE = 50
LIMITED = 51
REFUSED = 100
NO_PERMISSION = 101
NO_SUCH_ADDRESS = 102
EXISTS = 103
NOT_AS_ADDED = 104
OTHER_VERSION = 105
DEFECT = 199

LONGEST_INTERFACE = 15

_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_IDENTIFIER = _ALPHANUMERIC | frozenset("_.-")


class CniError(Exception):
    """What went wrong, as the runtime is told.

    Attributes:
        code: see the top of the module.
        msg: why, one clause.
        details: what to do about it, one clause, or empty.
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details


def is_identifier(text: str) -> bool:
    """Whether this may be a container's id or a network's name.

    >>> is_identifier("a1_b.c-d"), is_identifier("-a"), is_identifier("a/b"), is_identifier("")
    (True, False, False, False)
    """
    return text[:1] in _ALPHANUMERIC and bool(text) and _IDENTIFIER.issuperset(text)


def is_interface(text: str) -> bool:
    """Whether this may be the name of an interface.

    >>> is_interface("eth0"), is_interface(".."), is_interface("a b"), is_interface("x" * 16)
    (True, False, False, False)
    """
    if not 0 < len(text) <= LONGEST_INTERFACE or text in {".", ".."}:
        return False
    return not any(letter in "/:" or letter.isspace() for letter in text) and text.isprintable()


def check_version(version: object, verb: str) -> str:
    """The version of a configuration, once it is known that `verb` can be done for it.

    Raises:
        CniError: not one of ours, or one that does not know the verb. Nothing else.
    """
    if version is None:
        version = "0.1.0"  # what configurations were before they said it
    if not isinstance(version, str):
        raise CniError(UNDECODABLE, "cniVersion must be text")
    if version not in VERSIONS:
        supported = ", ".join(VERSIONS)
        raise CniError(
            INCOMPATIBLE,
            f"cniVersion {version[:32]!r} is not supported",
            f"use one of {supported}",
        )
    since = SINCE.get(verb, VERSIONS[0])
    if VERSIONS.index(version) < VERSIONS.index(since):
        why = f"cniVersion {version} has no {verb}"
        raise CniError(INCOMPATIBLE, why, f"use {since} or later")
    return version


def error_object(version: str, error: CniError) -> Json:
    """The error as the runtime reads it."""
    told: Json = {"cniVersion": version, "code": error.code, "msg": error.msg}
    if error.details:
        told["details"] = error.details
    return told


def version_object(asked: object) -> Json:
    """The answer to VERSION: with the version the runtime asked in, and all of ours.

    >>> version_object("0.4.0")["cniVersion"], version_object(None)["cniVersion"]
    ('0.4.0', '1.1.0')
    """
    numbers = isinstance(asked, str) and all(part.isdigit() for part in asked.split("."))
    return {"cniVersion": asked if numbers else NEWEST, "supportedVersions": list(VERSIONS)}


def objects(holder: Mapping[str, object], key: str) -> list[Json]:
    """The list of objects under `key`; empty if there is none or null.

    Raises:
        CniError: it is something else. Nothing else.
    """
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CniError(UNDECODABLE, f"{key} must be a list of objects")
    return list(value)


def mapping(holder: Mapping[str, object], key: str) -> Json:
    """The object under `key`; empty if there is none or null.

    Raises:
        CniError: it is something else. Nothing else.
    """
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CniError(UNDECODABLE, f"{key} must be an object")
    return value


def add_result(version: str, pod: Json, netns: str, previous: Json, dns: Json) -> Json:
    """What ADD answers: what the plugin before us did, and the pod behind that.

    Args:
        version: of the configuration; decides the form.
        pod: what the daemon says of it, see `pod.add` of the control socket.
        netns: its namespace, as the runtime wrote it.
        previous: the `prevResult`; empty if we are the first. Fields that are not ours stay.
        dns: of the configuration; empty leaves what was before.

    Raises:
        CniError: the previous result is not of the specification's form. Nothing else.
    """
    result = dict(previous)
    interfaces = objects(previous, "interfaces")
    at = len(interfaces) + 1
    result["cniVersion"] = version
    result["interfaces"] = [*interfaces, *_interfaces(version, pod, netns)]
    result["ips"] = [*objects(previous, "ips"), *_ips(version, pod, at)]
    result["routes"] = _joined(objects(previous, "routes"), _routes(pod))
    if dns or "dns" not in result:
        result["dns"] = dns
    return result


def _interfaces(version: str, pod: Json, netns: str) -> list[Json]:
    host: Json = {"name": pod["link"]}
    if pod.get("link_mac"):
        host["mac"] = pod["link_mac"]
    inside: Json = {"name": pod["interface"], "mac": pod["mac"], "sandbox": netns}
    if version not in VERSIONS[:3]:
        host["mtu"] = inside["mtu"] = pod["mtu"]
    return [host, inside]


def _ips(version: str, pod: Json, at: int) -> list[Json]:
    found: list[Json] = []
    for family, address, gateway in _families(pod):
        entry: Json = {"address": f"{address}/{32 if family == '4' else 128}", "interface": at}
        if gateway:
            entry["gateway"] = gateway
        if version in WITH_IP_VERSION:
            entry["version"] = family
        found.append(entry)
    return found


def _routes(pod: Json) -> list[Json]:
    anywhere = {"4": "0.0.0.0/0", "6": "::/0"}
    return [{"dst": anywhere[f], "gw": gateway} for f, _, gateway in _families(pod) if gateway]


def _joined(before: Sequence[Json], ours: Sequence[Json]) -> list[Json]:
    """Another plugin's way out of the pod stays the one that counts."""
    taken = {route.get("dst") for route in before}
    return [*before, *(route for route in ours if route["dst"] not in taken)]


def _families(pod: Json) -> list[tuple[str, object, object]]:
    families = (("4", "address", "gateway"), ("6", "address6", "gateway6"))
    return [(name, pod[key], pod.get(way)) for name, key, way in families if pod.get(key)]


def check_against(pod: Json, previous: Json, interface: str, netns: str) -> None:
    """CHECK: what ADD answered is what the daemon has.

    What later plugins of a chain may have changed (routes, hardware address) is not compared.

    Args:
        pod: what the daemon says of it.
        previous: the result of ADD.
        interface: the name inside the namespace.
        netns: the namespace, as the runtime wrote it.

    Raises:
        CniError: they differ, or the result does not name the interface. Nothing else.
    """
    interfaces = objects(previous, "interfaces")
    places = [
        at
        for at, entry in enumerate(interfaces)
        if entry.get("name") == interface and entry.get("sandbox") == netns
    ]
    if not places:
        why = f"prevResult has no interface {interface} in {netns}"
        raise CniError(BAD_CONFIG, why, "give CHECK what ADD answered")
    listed = {
        str(entry.get("address")).partition("/")[0]
        for entry in objects(previous, "ips")
        if entry.get("interface") in places
    }
    held = {str(address) for _, address, _ in _families(pod)}
    for address in sorted(listed - held) + sorted(held - listed):
        where = "the runtime's" if address in listed else "the daemon's"
        why = f"{address} of {interface} is in {where} books only"
        raise CniError(NOT_AS_ADDED, why, "remove the container and make it again")
