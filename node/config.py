"""Settings: `DIR/config.toml`, then MUSLIN_* variables, then flags, into one frozen `NodeConfig`.

`SETTINGS` is the one list of what can be set. Everything else follows from it: reading the three
sources, the error messages, `config.toml.example` (a test holds it against `example()`), and what
a reload can change.

    key in the file      variable                 flag of `muslin up`
    listen               MUSLIN_LISTEN            --listen
    log.level            MUSLIN_LOG_LEVEL         --log-level

All mistakes of all sources are reported together, each with its key. An unknown key is a mistake,
with a guess at what was meant. A variable that resembles none of ours may belong to somebody else
and is ignored; one that nearly is ours is a mistake.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from node import values
from node.logs import LogFormat
from node.loop import LoopKind
from overlay.config import CERTIFICATE_LIFETIME
from overlay.errors import ConfigError
from overlay.types import DEFAULT_PORT, Endpoint, Prefix

PREFIX: Final = "MUSLIN_"
OTHER_VARIABLES: Final = ("MUSLIN_STATE",)
"""Variables that are ours without being settings."""


ANY_ADDRESS: Final = Endpoint("::", DEFAULT_PORT)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All settings of the daemon. The defaults suit a small virtual machine."""

    listen: Endpoint = ANY_ADDRESS
    """UDP address of the underlay; `[::]` serves IPv4 and IPv6."""

    advertise: tuple[Endpoint, ...] = ()
    """Where other nodes reach this one; empty: they learn it from what they receive."""

    advertise_routes: tuple[Prefix, ...] = ()
    """Networks behind this node that it takes packets to, as far as its certificate allows."""

    egress: str = "none"
    """How pods reach the world: `none`, under their own addresses, or `masquerade`."""

    mtu: int = 1500
    """What pods see, in bytes, whatever the underlay carries."""

    underlay_mtu: int | None = None
    """Largest underlay packet worth probing for, in bytes; None: what the machine's links carry."""

    tun: str = "muslin0"
    """Name of the TUN interface."""

    lanes: int = 1
    """Processes that carry packets, 1 to 16; each has a UDP port: `listen`'s and those after it."""

    loop: LoopKind = LoopKind.UVLOOP

    log_level: str = "info"

    log_format: LogFormat = LogFormat.TEXT

    udp_gso: bool = True
    """Whether to let the kernel cut bursts into datagrams, where it can."""

    udp_gro: bool = True
    """Whether to let the kernel join datagrams into bursts, where it can."""

    tun_offload: tuple[str, ...] = values.TUN_OFFLOADS
    """What to leave to the kernel in packets exchanged with the TUN, where it can."""

    quarantine: int = 60
    """Seconds before the address of a deleted pod is given to another."""

    certificate_days: int = CERTIFICATE_LIFETIME // 86_400
    """How long the certificates live that this node makes, if the authority's key is here."""

    bench: bool = True
    """Whether members may measure the way to this node (`muslin bench`)."""

    passphrase_file: str = ""
    """File with the passphrase of the authority's key; empty: locked until somebody says it."""

    control_group: str = ""
    """Group whose members may look (`get`, `status`, `metrics`, `ping`); empty: root alone may."""

    docker: str = ""
    """Socket of the plugin that serves Docker (`node.docker`); empty: it is not served."""

    @property
    def masquerades(self) -> bool:
        """Whether pods reach the world under the node's address."""
        return self.egress == "masquerade"

    @property
    def certificate_lifetime(self) -> int:
        """`certificate_days` in seconds."""
        return self.certificate_days * values.DAY


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set.

    Attributes:
        key: its path in the file (`log.level`).
        field: its name in `NodeConfig`.
        parse: from what TOML, a variable or a flag gives; raises ValueError with one clause.
        help: for the example file, one line.
        reloadable: whether SIGHUP applies a change; others need a restart.
        flag: the flag of `muslin up` where it is not called as the key is.
    """

    key: str
    field: str
    parse: Callable[[object], object]
    help: str
    reloadable: bool = False
    flag: str = ""

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.key.replace(".", "_").upper()


SETTINGS: Final = (
    Setting("listen", "listen", values.endpoint, "UDP address of the underlay."),
    Setting(
        "advertise",
        "advertise",
        values.endpoints,
        "Where other nodes reach this one. Empty: they learn it from what they receive.",
        reloadable=True,
    ),
    Setting(
        "advertise_routes",
        "advertise_routes",
        values.prefixes,
        "Networks behind this node that pods shall reach; its certificate must allow them.",
        reloadable=True,
        flag="--advertise-route",
    ),
    Setting(
        "egress",
        "egress",
        values.choice("none", "masquerade"),
        "masquerade: pods reach the world under this node's address (needs nft); or none.",
        reloadable=True,
    ),
    Setting("mtu", "mtu", values.mtu, "What pods see, in bytes, whatever the underlay carries."),
    Setting(
        "underlay_mtu",
        "underlay_mtu",
        values.underlay_mtu,
        "Largest underlay packet to probe for, in bytes; auto: what this machine's links carry.",
    ),
    Setting("tun", "tun", values.interface, "Name of the TUN interface."),
    Setting(
        "lanes",
        "lanes",
        values.lanes,
        'Processes that carry packets, each on its own UDP port; "auto": one per CPU, at most 8.',
    ),
    Setting("loop", "loop", values.loop_kind, "Event loop: uvloop or asyncio."),
    Setting(
        "quarantine",
        "quarantine",
        values.seconds,
        "Seconds before the address of a deleted pod is given to another.",
    ),
    Setting(
        "certificate_days",
        "certificate_days",
        values.certificate_days,
        "Days that certificates live which are made here, where the authority's key is.",
    ),
    Setting(
        "bench",
        "bench",
        values.switch,
        "Let other nodes measure the way to this one (muslin bench).",
        reloadable=True,
    ),
    Setting(
        "control_group",
        "control_group",
        values.group,
        "Group whose members may look: muslin get, status, metrics, ping. Empty: root alone may.",
    ),
    Setting(
        "docker",
        "docker",
        values.docker,
        "Be Docker's driver muslin: true, or the socket's path if a .spec file names it to Docker.",
    ),
    Setting(
        "passphrase_file",
        "passphrase_file",
        values.path,
        "File with the passphrase of the authority's key. Empty: locked until authority unlock.",
    ),
    Setting(
        "log.level",
        "log_level",
        values.choice(*values.LOG_LEVELS),
        "debug, info, warning or error.",
        reloadable=True,
    ),
    Setting("log.format", "log_format", values.log_format, "text or json."),
    Setting(
        "offload.udp_gso", "udp_gso", values.switch, "Let the kernel cut bursts into datagrams."
    ),
    Setting(
        "offload.udp_gro", "udp_gro", values.switch, "Let the kernel join datagrams into bursts."
    ),
    Setting(
        "offload.tun",
        "tun_offload",
        values.tun_offloads,
        "What to leave to the kernel in packets of the TUN; true is all of them, false none.",
    ),
)
DEEPEST: Final = max(setting.key.count(".") for setting in SETTINGS)
"""Tables around a setting. A file may nest thousands, by one long key."""
_BY_KEY: Final = {setting.key: setting for setting in SETTINGS}
_BY_VARIABLE: Final = {setting.variable: setting for setting in SETTINGS}


def load_config(
    path: Path, environment: Mapping[str, str], flags: Mapping[str, object] | None = None
) -> NodeConfig:
    """The settings of a node.

    Args:
        path: the TOML file; need not exist.
        environment: variables; only MUSLIN_* are looked at.
        flags: by key; None values are flags that were not given.

    Raises:
        ConfigError: everything that is wrong, in one message, one clause each. Nothing else.
            If that is flags alone, its key is the first of them.
    """
    mistakes: list[str] = []
    values: dict[str, object] = {}
    for origin, key, raw in _sources(path, environment, flags or {}, mistakes):
        setting = _BY_KEY[key]
        try:
            values[setting.field] = setting.parse(raw)
        except ValueError as error:
            mistakes.append(f"{origin} {error}")
    if mistakes:
        raise _wrong(mistakes)
    return NodeConfig(**values)  # type: ignore[arg-type]  # parsers return the fields' types


def _wrong(mistakes: list[str]) -> ConfigError:
    """All mistakes in one error; its key is a flag when nothing but flags is wrong."""
    if all(mistake.startswith("--") for mistake in mistakes):
        flag, _, first = mistakes[0].partition(" ")
        return ConfigError("; ".join([first, *mistakes[1:]]), flag)
    return ConfigError("; ".join(mistakes))


def _sources(
    path: Path,
    environment: Mapping[str, str],
    flags: Mapping[str, object],
    mistakes: list[str],
) -> Iterator[tuple[str, str, object]]:
    """Yield (how to name it, key, raw value), later ones winning."""
    for key, raw in _flatten(_read_toml(path, mistakes)):
        if key in _BY_KEY:
            yield f"{path}: {key}", key, raw
        else:
            mistakes.append(f"{path}: {key} is not a setting{values.meant(key, _BY_KEY)}")
    for variable, text in sorted(environment.items()):
        if variable in _BY_VARIABLE:
            yield variable, _BY_VARIABLE[variable].key, text
        elif variable.startswith(PREFIX) and variable not in OTHER_VARIABLES:
            guess = values.meant(variable, _BY_VARIABLE)
            mistakes += [f"{variable} is not a setting{guess}"] if guess else []
    for key, raw in flags.items():
        if raw is not None and raw != ():
            flag = _BY_KEY[key].flag or "--" + key.replace(".", "-").replace("_", "-")
            yield flag, key, raw


def _read_toml(path: Path, mistakes: list[str]) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        mistakes.append(f"{path} is not TOML ({error})")
    except OSError as error:
        mistakes.append(f"{path} cannot be read ({error.strerror})")
    return {}


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (key, raw value) of all settings; what lies deeper than any is not looked into."""
    for name, value in table.items():
        if isinstance(value, dict) and prefix.count(".") < DEEPEST:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """Which keys differ between two configurations, by what it takes to apply them."""

    reloadable: tuple[str, ...]
    restart: tuple[str, ...]


def diff(old: NodeConfig, new: NodeConfig) -> ConfigDiff:
    """What a reload from `old` to `new` would change."""
    changed = [s for s in SETTINGS if getattr(old, s.field) != getattr(new, s.field)]
    return ConfigDiff(
        reloadable=tuple(setting.key for setting in changed if setting.reloadable),
        restart=tuple(setting.key for setting in changed if not setting.reloadable),
    )


# -- writing the file ------------------------------------------------------------------------------

_HEADER: Final = """\
# Settings of a Muslin node. Copy to config.toml in the state folder; every line is optional and
# shows its default. MUSLIN_* variables (MUSLIN_LOG_LEVEL for log.level) override this file, flags
# of `muslin up` override both. SIGHUP applies changes of the keys marked (reload).
"""


def example(config: NodeConfig | None = None) -> str:
    """The text of a complete config.toml; values that are not the default are set, others shown."""
    config = config or NodeConfig()
    lines = [_HEADER]
    table = ""
    for setting in SETTINGS:
        section, _, name = setting.key.rpartition(".")
        if section != table:
            lines.append(f"[{section}]")
            table = section
        value = getattr(config, setting.field)
        mark = "" if value != _default(setting) else "# "
        note = f"# {setting.help}{' (reload)' if setting.reloadable else ''}"
        lines.append(f"{note}\n{mark}{name} = {_toml(value)}\n")
    return "\n".join(lines)


def _default(setting: Setting) -> object:
    return next(field.default for field in fields(NodeConfig) if field.name == setting.field)


def _toml(value: object) -> str:
    match value:
        case None:
            return f'"{values.AUTO}"'
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case Endpoint() | str() | IPv4Network() | IPv6Network():
            return f'"{value}"'
        case tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")
