"""What a runtime asks, from its variables and its configuration, as parameters for the daemon.

    CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME     which verb, for which attachment
    CNI_ARGS                K8S_POD_...                     labels of the pod
                            IP=A[,A6]                       addresses
                            IgnoreUnknown=1                 else an unknown key is an error
    name, state             the network; the node's folder (else MUSLIN_STATE, else the default)
    args.cni                ips, labels                     as the conventions have them
    runtimeConfig           ips, bandwidth, portMappings, dns; what cannot be granted is refused

Keys that nobody here knows are ignored, as the specification wants it. Checks that would keep a DEL
from its work are made for ADD only.
"""

from __future__ import annotations

from node.cni.spec import (
    BAD_CONFIG,
    BAD_ENVIRONMENT,
    UNDECODABLE,
    UNSUPPORTED,
    VERBS,
    CniError,
    Json,
    is_identifier,
    is_interface,
    mapping,
    objects,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_STATE = "/var/lib/muslin"
STATE_VARIABLE = "MUSLIN_STATE"

ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")
"""Where GC finds its list; libcni writes both, because the specification once said the second."""

MOST_LABELS = 32
LONGEST_LABEL = 256
"""What the daemon takes; labels are only told to people, so what is more is left out."""

_POD_LABELS = {
    "K8S_POD_NAMESPACE": "namespace",
    "K8S_POD_NAME": "pod",
    "K8S_POD_UID": "uid",
    "K8S_POD_INFRA_CONTAINER_ID": "sandbox",
}
_NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}
_NOT_GRANTED = {
    "mac": "the daemon chooses hardware addresses: leave it out",
    "ipRanges": "addresses come from the node's blocks: leave it out, or ask for one with ips",
    "deviceID": "a pod's interface is a veth: leave it out",
    "infinibandGUID": "a pod's interface is a veth: leave it out",
}
_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104 - compared with, nothing is bound
_DNS = {"servers": "nameservers", "searches": "search", "options": "options"}


class Attachment:
    """Which container, which interface of it, in which namespace; empty where the verb has none."""

    __slots__ = ("container", "interface", "netns")

    def __init__(self, container: str, interface: str, netns: str) -> None:
        self.container = container
        self.interface = interface
        self.netns = netns


def verb_of(environ: Mapping[str, str]) -> str:
    """The verb.

    Raises:
        CniError: none, or an unknown one. Nothing else.
    """
    verb = environ.get("CNI_COMMAND", "")
    if verb not in VERBS:
        why = f"CNI_COMMAND is {verb[:32]!r}" if verb else "CNI_COMMAND is missing"
        raise CniError(BAD_ENVIRONMENT, why, f"one of {', '.join(VERBS)}")
    return verb


def attachment_of(environ: Mapping[str, str], verb: str) -> Attachment:
    """What the verb is for.

    Raises:
        CniError: variables are missing or wrong; all of them are named. Nothing else.
    """
    needed = _NEEDED.get(verb, ())
    values = {name: environ.get(name, "") for name in _NEEDED["ADD"]}
    wrong = [f"{name} is missing" for name in needed if not values[name]]
    for name, is_right in (
        ("CNI_CONTAINERID", is_identifier),
        ("CNI_IFNAME", is_interface),
        ("CNI_NETNS", lambda path: path.startswith("/") and "\0" not in path),
    ):
        if name in needed and values[name] and not is_right(values[name]):
            wrong.append(f"{name} {values[name][:64]!r} is not one")
    if wrong:
        raise CniError(BAD_ENVIRONMENT, ", ".join(wrong))
    return Attachment(values["CNI_CONTAINERID"], values["CNI_IFNAME"], values["CNI_NETNS"])


def network_of(config: Json) -> str:
    """The network's name.

    Raises:
        CniError: none, or not one. Nothing else.
    """
    name = config.get("name")
    if not isinstance(name, str) or not is_identifier(name):
        why = "name must be letters, digits and _ . -, and begin with a letter or digit"
        raise CniError(BAD_CONFIG, why)
    return name


def state_of(config: Json, environ: Mapping[str, str]) -> str:
    """The node's folder: of the configuration, else of the environment, else the default.

    Raises:
        CniError: it is not an absolute path. Nothing else.
    """
    state = config.get("state")
    if state is None:
        state = environ.get(STATE_VARIABLE) or DEFAULT_STATE
    if not isinstance(state, str) or not state.startswith("/") or "\0" in state:
        raise CniError(BAD_CONFIG, f"state must be an absolute path, not {state!r}")
    return state


def check_config(config: Json) -> None:
    """Refuse what the daemon could not do for any container of this network.

    Raises:
        CniError: addresses of another plugin, or masquerade by this one. Nothing else.
    """
    kind = mapping(config, "ipam").get("type")
    if kind not in (None, "", "muslin"):
        why = f"ipam type {kind!r} cannot be used: addresses come from the node's own blocks"
        raise CniError(BAD_CONFIG, why, "take ipam out of the configuration")
    if config.get("ipMasq"):
        fix = "set egress in the node's config.toml"
        raise CniError(UNSUPPORTED, "ipMasq true: masquerade is the node's setting", fix)


def add_params(config: Json, attachment: Attachment, arguments: str) -> Json:
    """The parameters of the daemon's `pod.add`.

    Args:
        config: what came on standard input.
        attachment: what it is for.
        arguments: CNI_ARGS.

    Raises:
        CniError: the configuration or the arguments ask for what cannot be. Nothing else.
    """
    check_config(config)
    runtime = mapping(config, "runtimeConfig")
    for key, fix in _NOT_GRANTED.items():
        if runtime.get(key):
            why = f"runtimeConfig.{key} {runtime[key]!r} cannot be granted"
            raise CniError(UNSUPPORTED, why, fix)
    given = _arguments(arguments)
    extra = mapping(mapping(config, "args"), "cni")
    params: Json = {
        "owner": "cni",
        "container": attachment.container,
        "interface": attachment.interface,
        "netns": attachment.netns,
        "network": network_of(config),
        "labels": _labels(given, extra),
    }
    asked = runtime.get("ips") or extra.get("ips") or given.get("IP", "").split(",")
    params |= _addresses(asked)
    params |= _rates(_usual(mapping(runtime, "bandwidth")))
    if ports := _ports([_usual(entry) for entry in objects(runtime, "portMappings")]):
        params["ports"] = ports
    return params


def dns_of(config: Json) -> Json:
    """What the result says of name service: what the configuration does, the runtime's word first.

    Raises:
        CniError: not of the specification's form. Nothing else.
    """
    dns = dict(mapping(config, "dns"))
    runtime = _usual(mapping(mapping(config, "runtimeConfig"), "dns"))
    return dns | {ours: runtime[key] for key, ours in _DNS.items() if runtime.get(key)}


def kept_by(config: Json) -> list[list[str]]:
    """What GC leaves alone, as container and interface.

    Raises:
        CniError: there is no list, or it is not of the specification's form. Nothing else.
    """
    for key in ATTACHMENTS:
        if key in config:
            return [_kept(key, entry) for entry in objects(config, key)]
    why = f"{ATTACHMENTS[0]} is missing"
    raise CniError(BAD_CONFIG, why, "an empty list says that nothing is valid any more")


def _kept(key: str, entry: Json) -> list[str]:
    names = [entry.get("containerID"), entry.get("ifname")]
    if not all(isinstance(name, str) and name for name in names):
        raise CniError(BAD_CONFIG, f"{key} has an entry without containerID or ifname")
    return [str(name) for name in names]


def _arguments(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(";") if pair]
    given = {key: value for key, _, value in pairs}
    if not all(equals for _, equals, _ in pairs):
        raise CniError(BAD_ENVIRONMENT, "CNI_ARGS must be KEY=VALUE;KEY=VALUE")
    if mac := given.get("MAC"):
        raise CniError(UNSUPPORTED, f"CNI_ARGS MAC={mac} cannot be granted", _NOT_GRANTED["mac"])
    lenient = given.pop("IgnoreUnknown", "").lower() in {"1", "true"}
    unknown = sorted(given.keys() - _POD_LABELS.keys() - {"IP", "MAC"})
    if unknown and not lenient:
        why = f"CNI_ARGS has keys that are not known: {', '.join(unknown)}"
        raise CniError(BAD_ENVIRONMENT, why, "leave them out, or say IgnoreUnknown=1")
    return given


def _labels(given: Mapping[str, str], extra: Json) -> Json:
    said: list[tuple[object, object]] = [
        (label, given[key]) for key, label in _POD_LABELS.items() if given.get(key)
    ]
    listed = extra.get("labels")
    items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    said += [(item.get("key"), item.get("value")) for item in items]
    labels: Json = {}
    for key, value in said:
        if _tellable(key) and _tellable(value) and len(labels) < MOST_LABELS:
            labels.setdefault(str(key), value)
    return labels


def _tellable(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= LONGEST_LABEL and text.isprintable()


def _addresses(asked: object) -> Json:
    """`ip` and `ip6` of what was asked for; a prefix length is left out, ours is the whole."""
    if not isinstance(asked, list) or not all(isinstance(address, str) for address in asked):
        raise CniError(UNDECODABLE, "ips must be a list of addresses")
    wanted: Json = {}
    for address in (text.strip().partition("/")[0] for text in asked):
        key = "ip6" if ":" in address else "ip"
        if key in wanted:
            why = f"ips {', '.join(asked)}: a pod has one address of each family"
            raise CniError(BAD_CONFIG, why)
        if address:
            wanted[key] = address
    return wanted


def _usual(said: Json) -> Json:
    """The same, its keys as CONVENTIONS.md has them: containerd writes HostPort for hostPort."""
    return {key[:1].lower() + key[1:]: value for key, value in said.items()}


def _rates(bandwidth: Json) -> Json:
    rates: Json = {}
    for way in ("ingress", "egress"):
        rate, burst = (_number(bandwidth, f"{way}{what}") for what in ("Rate", "Burst"))
        if bool(rate) != bool(burst):
            why = f"bandwidth {way}Rate {rate} and {way}Burst {burst}: it needs both, or none"
            raise CniError(BAD_CONFIG, why)
        if rate:
            rates[way] = {"bits": rate, "burst": burst}
    return rates


def _ports(mappings: list[Json]) -> list[Json]:
    ports: list[Json] = []
    for entry in mappings:
        port: Json = {
            "protocol": str(entry.get("protocol") or "tcp").lower(),
            "host_port": _number(entry, "hostPort"),
            "port": _number(entry, "containerPort"),
            "host": _host(str(entry.get("hostIP") or "")),
        }
        if not port["host_port"] or not port["port"]:
            raise CniError(BAD_CONFIG, f"portMappings: {entry} has no hostPort or containerPort")
        if port not in ports:  # one for every family of the host is one to us
            ports.append(port)
    return ports


def _host(text: str) -> str:
    if not text or text in _ANY_HOST:
        return ""
    import ipaddress  # noqa: PLC0415 - slow, and few ask for it

    try:
        return str(ipaddress.ip_address(text.replace("%", " ")))  # whose zone may be anything
    except ValueError as error:
        raise CniError(BAD_CONFIG, f"portMappings: hostIP {text[:64]!r} is no address") from error


def _number(holder: Json, key: str) -> int:
    value = holder.get(key) or 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CniError(BAD_CONFIG, f"{key} must be a whole number, not {value!r}")
    return value
