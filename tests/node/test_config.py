"""Settings from three sources, and all mistakes at once."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

import node.config
from node.config import SETTINGS, NodeConfig, diff, example, load_config
from node.logs import LogFormat
from node.loop import LoopKind
from overlay.errors import ConfigError
from overlay.types import Endpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def mistakes(*args: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(*args)
    return str(caught.value).split("; ")


def test_without_anything_the_defaults_hold(path) -> None:
    config = load_config(path, {"PATH": "/bin", "MUSLIN_STATE": "/x"})
    assert config == NodeConfig()
    assert str(config.listen) == "[::]:6875"


def test_a_variable_wins_over_the_file_and_a_flag_over_both(path) -> None:
    path.write_text(
        'mtu = 1300\nunderlay_mtu = 1300\nadvertise = ["192.0.2.9"]\n[log]\nlevel = "error"\n'
    )
    environment = {"MUSLIN_UNDERLAY_MTU": "1400", "MUSLIN_LOG_LEVEL": "warning"}
    config = load_config(path, environment, {"log.level": "debug", "mtu": None, "advertise": ()})
    assert (config.mtu, config.underlay_mtu, config.log_level) == (1300, 1400, "debug")
    assert config.advertise == (Endpoint("192.0.2.9", 6875),)


def test_every_setting_can_be_set_in_the_file_and_by_a_variable(path) -> None:
    path.write_text(
        """
        listen = "192.0.2.1:7000"
        advertise = ["203.0.113.1", "[2001:db8::1]:7000"]
        mtu = 1400
        underlay_mtu = 9000
        tun = "mus1"
        loop = "asyncio"
        quarantine = 90
        certificate_days = 30
        bench = false
        [log]
        level = "debug"
        format = "json"
        [offload]
        udp_gso = false
        udp_gro = false
        tun = false
        """
    )
    expected = NodeConfig(
        listen=Endpoint("192.0.2.1", 7000),
        advertise=(Endpoint("203.0.113.1", 6875), Endpoint("2001:db8::1", 7000)),
        mtu=1400,
        underlay_mtu=9000,
        tun="mus1",
        loop=LoopKind.ASYNCIO,
        quarantine=90,
        certificate_days=30,
        bench=False,
        log_level="debug",
        log_format=LogFormat.JSON,
        udp_gso=False,
        udp_gro=False,
        tun_offload=(),
    )
    assert load_config(path, {}) == expected
    environment = {
        "MUSLIN_LISTEN": "192.0.2.1:7000",
        "MUSLIN_ADVERTISE": "203.0.113.1,[2001:db8::1]:7000",
        "MUSLIN_MTU": "1400",
        "MUSLIN_UNDERLAY_MTU": "9000",
        "MUSLIN_TUN": "mus1",
        "MUSLIN_LOOP": "asyncio",
        "MUSLIN_QUARANTINE": "90",
        "MUSLIN_CERTIFICATE_DAYS": "30",
        "MUSLIN_BENCH": "false",
        "MUSLIN_LOG_LEVEL": "debug",
        "MUSLIN_LOG_FORMAT": "json",
        "MUSLIN_OFFLOAD_UDP_GSO": "false",
        "MUSLIN_OFFLOAD_UDP_GRO": "False",
        "MUSLIN_OFFLOAD_TUN": "FALSE",
    }
    assert load_config(path.with_name("none"), environment) == expected


@pytest.mark.parametrize(
    ("written", "variable", "names"),
    [
        ("true", "true", ("checksum", "tso", "uso")),
        ("false", "false", ()),
        ("[]", "", ()),
        ('["checksum"]', "checksum", ("checksum",)),
        ('["uso", "checksum"]', "uso, checksum", ("checksum", "uso")),
        ('["checksum", "tso"]', "checksum,tso", ("checksum", "tso")),
    ],
)
def test_offloads_of_the_tun_are_all_none_or_named(path, written, variable, names) -> None:
    path.write_text(f"offload.tun = {written}")
    assert load_config(path, {}).tun_offload == names
    assert (
        load_config(path.with_name("none"), {"MUSLIN_OFFLOAD_TUN": variable}).tun_offload == names
    )


@pytest.mark.parametrize(("value", "mtu"), [('"auto"', None), ("9216", 9216), ('"1280"', 1280)])
def test_the_underlay_s_mtu_is_a_number_or_found_out(path, value, mtu) -> None:
    path.write_text(f"underlay_mtu = {value}")
    assert load_config(path, {}).underlay_mtu == mtu


def test_all_mistakes_of_all_sources_are_told_together(path) -> None:
    path.write_text('mtu = 100\n[log]\nlevl = "info"\n')
    found = mistakes(path, {"MUSLIN_LOOP": "twisted", "MUSLIN_LOGLEVEL": "x"}, {"listen": "foo"})
    assert len(found) == 5
    text = " ".join(found)
    assert f"{path}: mtu must be 1280 to 9000, not 100" in text
    assert f"{path}: log.levl is not a setting (did you mean log.level?)" in text
    assert "MUSLIN_LOOP must be uvloop or asyncio, not 'twisted'" in text
    assert "MUSLIN_LOGLEVEL is not a setting (did you mean MUSLIN_LOG_LEVEL?)" in text
    assert "--listen 'foo' is not ADDRESS:PORT" in text


def test_networks_to_advertise_come_from_each_source_and_are_named_by_their_own_flag(path) -> None:
    path.write_text('advertise_routes = ["192.168.7.0/24", "2001:db8:7::/48"]\n')
    lan, lan6 = ip_network("192.168.7.0/24"), ip_network("2001:db8:7::/48")
    assert load_config(path, {}).advertise_routes == (lan, lan6)
    variable = {"MUSLIN_ADVERTISE_ROUTES": "192.168.7.0/24"}
    assert load_config(path, variable).advertise_routes == (lan,)
    flags = {"advertise_routes": ("2001:db8:7::/48",)}
    assert load_config(path, variable, flags).advertise_routes == (lan6,)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {}, {"advertise_routes": ("192.168.7.1/24",)})
    assert caught.value.key == "--advertise-route"
    assert diff(load_config(path, {}), NodeConfig()).reloadable == ("advertise_routes",)
    text = example(load_config(path, {}))
    assert '\nadvertise_routes = ["192.168.7.0/24", "2001:db8:7::/48"]\n' in text


def test_flags_that_alone_are_wrong_are_named_as_the_key(path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, {}, {"listen": "foo", "loop": "twisted"})
    assert caught.value.key == "--listen"
    assert str(caught.value).startswith("'foo' is not ADDRESS:PORT")
    assert str(caught.value).endswith("; --loop must be uvloop or asyncio, not 'twisted'")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {"MUSLIN_LOOP": "twisted"}, {"listen": "foo"})
    assert caught.value.key == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("listen = 5", 'listen must be "ADDRESS:PORT"'),
        ("listen = '192.0.2.1:70000'", "the port must be 1 to 65535"),
        ("advertise = 5", "advertise must be a list"),
        ("advertise = ['[::]:6875']", "is not an address that others can reach"),
        ("mtu = true", "mtu must be a number"),
        ("mtu = '9001'", "mtu must be 1280 to 9000"),
        ("tun = 'a/b'", "is not an interface name"),
        ("tun = ''", "is not an interface name"),
        ("tun = 7", "is not an interface name"),
        ("tun = 'a234567890123456'", "at most 15 characters, not 16"),
        (
            "log.level = 'inf'",
            "must be debug or info or warning or error, not 'inf' (did you mean info?)",
        ),
        ("offload.tun = 1", "offload.tun must be true, false or a list of checksum, tso, uso"),
        ("offload.tun = ['tso2']", "must be true, false or a list of checksum, tso, uso"),
        ("offload.tun = ['tso']", "offload.tun must have checksum, which tso and uso build on"),
        ("underlay_mtu = 'automatic'", "underlay_mtu must be a number, 1280 to 9216"),
        ("underlay_mtu = 9217", "underlay_mtu must be 1280 to 9216, not 9217"),
        ("lanes = 0", "lanes must be 1 to 16, or auto, not 0"),
        ("lanes = 17", "lanes must be 1 to 16, or auto, not 17"),
        ("lanes = '-1'", "lanes must be 1 to 16, or auto, not '-1'"),
        ("lanes = true", "lanes must be 1 to 16, or auto"),
        ("lanes = 'all'", "lanes must be 1 to 16, or auto"),
        ("zzz = 1", "zzz is not a setting"),
        ("listen =", "is not TOML"),
    ],
)
def test_a_mistake_is_one_clause_with_its_key(path, text, says) -> None:
    path.write_text(text)
    (mistake,) = mistakes(path, {})
    assert says in mistake
    assert str(path) in mistake


def test_an_unreadable_file_is_told_not_ignored(tmp_path) -> None:
    (mistake,) = mistakes(tmp_path, {})
    assert "cannot be read (Is a directory)" in mistake


def test_a_variable_of_somebody_else_is_ignored(path) -> None:
    assert load_config(path, {"MUSLIN_DEMO_COLOURS": "1"}) == NodeConfig()


def test_each_field_has_exactly_one_setting() -> None:
    assert sorted(setting.field for setting in SETTINGS) == sorted(
        field.name for field in fields(NodeConfig)
    )


def test_the_shipped_example_is_the_generated_one() -> None:
    shipped = Path(node.config.__file__).with_name("config.toml.example")
    assert shipped.read_text() == example(), "write node.config.example() to it"


def test_the_example_with_every_line_active_is_the_default(path) -> None:
    lines = (line.removeprefix("# ") if " = " in line else line for line in example().splitlines())
    path.write_text("\n".join(line for line in lines if not line.startswith("#")))
    assert set(tomllib.loads(path.read_text())) == {s.key.partition(".")[0] for s in SETTINGS}
    assert load_config(path, {}) == NodeConfig()


def test_an_example_with_values_gives_these_values(path) -> None:
    config = NodeConfig(
        listen=Endpoint("2001:db8::1", 1),
        advertise=(Endpoint("192.0.2.1", 2),),
        mtu=1280,
        loop=LoopKind.ASYNCIO,
        udp_gso=False,
    )
    path.write_text(example(config))
    assert load_config(path, {}) == config


def test_a_diff_tells_what_a_reload_applies_from_what_needs_a_restart() -> None:
    new = NodeConfig(advertise=(Endpoint("192.0.2.1", 2),), log_level="debug", mtu=1280)
    found = diff(NodeConfig(), new)
    assert found.reloadable == ("advertise", "log.level")
    assert found.restart == ("mtu",)


@pytest.mark.parametrize(("given", "lanes"), [("3", 3), ("16", 16), ("1", 1)])
def test_lanes_are_a_number(path, given, lanes) -> None:
    path.write_text(f"lanes = {given}")
    assert load_config(path, {}).lanes == lanes
    assert load_config(path, {"MUSLIN_LANES": given}).lanes == lanes
    assert load_config(path, {}, {"lanes": given}).lanes == lanes


@pytest.mark.parametrize(("usable", "lanes"), [(1, 1), (2, 2), (8, 8), (64, 8)])
def test_auto_is_a_lane_per_usable_processor_within_bounds(
    path, monkeypatch, usable, lanes
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)))
    assert load_config(path, {"MUSLIN_LANES": "auto"}).lanes == lanes
