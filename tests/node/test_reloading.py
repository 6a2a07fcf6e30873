"""What a reload of the settings takes over, and what it says."""

from __future__ import annotations

import logging
from dataclasses import replace

from node.config import NodeConfig
from node.logs import LOGGER, EventLog
from node.reloading import reloaded
from overlay.errors import ConfigError


def test_the_new_settings_are_taken_over_and_told_apart(caplog) -> None:
    new = replace(NodeConfig(), log_level="debug", mtu=1400)
    with caplog.at_level(logging.INFO, LOGGER):  # and the level is as it was afterwards
        assert reloaded(NodeConfig(), lambda: new, EventLog()) is new
        assert logging.getLogger(LOGGER).level == logging.DEBUG
    (record,) = caplog.records
    assert record.fields == {"applied": "log.level", "needs_restart": "mtu"}


def test_a_mistake_keeps_the_present_settings(caplog) -> None:
    def wrong() -> NodeConfig:
        raise ConfigError("mtu must be a number", "mtu")

    current = NodeConfig()
    with caplog.at_level(logging.INFO, LOGGER):
        assert reloaded(current, wrong, EventLog()) is current
    (record,) = caplog.records
    assert (record.getMessage(), record.fields) == (
        "config.refused",
        {"why": "mtu must be a number"},
    )
