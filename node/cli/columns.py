"""What `muslin get` shows of each kind, and how a NAME selects among its objects.

A column is a header, the key of the object (see `node.control.present`) and how people read the
value. Wide columns are for `-o wide`. `changing` names the keys that differ at every look without
anything having happened, so that `--watch` knows when there is news.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from node.cli.output import duration, milliseconds, plain, share, size, table, to_json, to_yaml

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    header: str
    key: str
    show: Callable[[object], str] = plain
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    Attributes:
        names: how it may be written; the first one is what the daemon calls it.
        name_of: what `-o name` prints and NAME is compared with, most exact first.
        columns: of the table, in order.
        changing: keys that say nothing new when they differ.
    """

    names: tuple[str, ...]
    name_of: Callable[[Json], tuple[str, ...]]
    columns: tuple[Column, ...]
    changing: frozenset[str] = frozenset()

    def row(self, item: Json, *, wide: bool) -> list[str]:
        """The cells of one object."""
        return [column.show(item.get(column.key)) for column in self._shown(wide=wide)]

    def headers(self, *, wide: bool) -> list[str]:
        """The headers."""
        return [column.header for column in self._shown(wide=wide)]

    def _shown(self, *, wide: bool) -> list[Column]:
        return [column for column in self.columns if wide or not column.wide]

    def matches(self, item: Json, name: str) -> bool:
        """Whether NAME selects this object."""
        return name in self.name_of(item)

    def news(self, items: list[Json]) -> list[Json]:
        """The objects without what changes at every look."""
        return [
            {key: value for key, value in item.items() if key not in self.changing}
            for item in items
        ]


def since(value: object) -> str:
    """The age of a moment in RFC 3339."""
    if not isinstance(value, str):
        return ""
    return duration(max(0.0, time.time() - datetime.fromisoformat(value).timestamp()))


def until(value: object) -> str:
    """The day of a moment in RFC 3339.

    >>> until("2027-02-19T08:00:00.000Z")
    'until 2027-02-19'
    """
    return f"until {value[:10]}" if isinstance(value, str) else ""


def _total(value: object) -> str:
    return str(sum(value.values())) if isinstance(value, dict) else ""


def _offloads(value: object) -> str:
    """The names, shorter, in their order from the wire to the pod."""
    names = value if isinstance(value, list) else []
    return " ".join(_SHORT.get(str(name), str(name)) for name in names) or "none"


def _digits(value: object) -> str:
    """The first digits of a container's id, as its runtime shows it."""
    return str(value)[:12] if value else ""


def _limits(value: object) -> str:
    """Bits per second."""
    bits = value.get("bits") if isinstance(value, dict) else None
    return f"{bits:,}" if isinstance(bits, int) else ""


def _ports(value: object) -> str:
    """`8080:80/tcp`, and the address in front where there is one."""
    shown = []
    for port in value if isinstance(value, list) else []:
        host = port["host"]
        where = "" if not host else f"[{host}]:" if ":" in host else f"{host}:"
        shown.append(f"{where}{port['host_port']}:{port['port']}/{port['protocol']}")
    return " ".join(shown)


def _labels(value: object) -> str:
    """`key=value`, in the order given."""
    return (
        " ".join(f"{key}={said}" for key, said in value.items()) if isinstance(value, dict) else ""
    )


_SHORT: Final = {"udp_gso": "gso", "udp_gro": "gro", "checksum": "csum"}


def _key(*keys: str) -> Callable[[Json], tuple[str, ...]]:
    return lambda item: tuple(str(item[key]) for key in keys if item[key] is not None)


def _pod_names(item: Json) -> tuple[str, ...]:
    return f"{item['node']}/{item['name']}", str(item["name"])


NODES: Final = Kind(
    names=("nodes", "node"),
    name_of=_key("name"),
    columns=(
        Column("name", "name"),
        Column("state", "state"),
        Column("address", "address"),
        Column("address6", "address6", wide=True),
        Column("endpoint", "endpoint"),
        Column("path", "path"),
        Column("rtt", "rtt", milliseconds),
        Column("loss", "loss", share, wide=True),
        Column("seen", "seen", duration),
        Column("pods", "pods"),
        Column("blocks", "blocks", wide=True),
        Column("certificate", "certificate_expires", until, wide=True),
        Column("version", "version", wide=True),
    ),
    changing=frozenset({"rtt", "loss", "seen"}),
)
PODS: Final = Kind(
    names=("pods", "pod"),
    name_of=_pod_names,
    columns=(
        Column("name", "name"),
        Column("node", "node"),
        Column("address", "address"),
        Column("address6", "address6"),
        Column("state", "state"),
        Column("age", "age", duration),
        Column("netns", "netns", wide=True),
        Column("owner", "owner", wide=True),
        Column("container", "container", _digits, wide=True),
        Column("interface", "interface", wide=True),
        Column("link", "link", wide=True),
        Column("ingress", "ingress", _limits, wide=True),
        Column("egress", "egress", _limits, wide=True),
        Column("ports", "ports", _ports, wide=True),
        Column("labels", "labels", _labels, wide=True),
    ),
    changing=frozenset({"age"}),
)
ROUTES: Final = Kind(
    names=("routes", "route"),
    name_of=_key("prefix"),
    columns=(
        Column("prefix", "prefix"),
        Column("node", "node"),
        Column("via", "via"),
        Column("origin", "origin"),
        Column("state", "state"),
        Column("age", "age", duration),
    ),
    changing=frozenset({"age"}),
)
SESSIONS: Final = Kind(
    names=("sessions", "session"),
    name_of=_key("node"),
    columns=(
        Column("node", "node"),
        Column("endpoint", "endpoint"),
        Column("cipher", "cipher"),
        Column("established", "established", since),
        Column("rekeyed", "rekeyed", since),
        Column("mtu", "mtu"),
        Column("mtu-state", "mtu_state", wide=True),
        Column("offloads", "offloads", _offloads, wide=True),
        Column("trial", "trial", wide=True),
        Column("tx", "tx_bytes", size),
        Column("rx", "rx_bytes", size),
        Column("drops", "drops", _total),
        Column("reasons", "drops", wide=True),
    ),
    changing=frozenset({"tx_bytes", "rx_bytes"}),
)
BLOCKS: Final = Kind(
    names=("blocks", "block"),
    name_of=_key("prefix", "prefix6"),
    columns=(
        Column("prefix", "prefix"),
        Column("prefix6", "prefix6", wide=True),
        Column("node", "node"),
        Column("state", "state"),
        Column("blocks", "blocks"),
        Column("pods", "pods"),
    ),
)
KINDS: Final = (NODES, PODS, ROUTES, SESSIONS, BLOCKS)
BY_NAME: Final = {name: kind for kind in KINDS for name in kind.names}


def render(kind: Kind, items: list[Json], output: str | None) -> str:
    """Objects of a kind as `-o` wants them; None is the usual table."""
    match output:
        case "json":
            return to_json(items)
        case "yaml":
            return to_yaml(items)
        case "name":
            return "\n".join(kind.name_of(item)[0] for item in items)
    if not items:
        return f"no {kind.names[0]}"
    wide = output == "wide"
    return table(kind.headers(wide=wide), [kind.row(item, wide=wide) for item in items])
