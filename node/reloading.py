"""SIGHUP: read the settings again and take over what can change while the daemon runs."""

from __future__ import annotations

from collections.abc import Callable

from node.config import NodeConfig, diff
from node.logs import EventLog, set_level
from overlay.errors import ConfigError


def reloaded(current: NodeConfig, reload: Callable[[], NodeConfig], log: EventLog) -> NodeConfig:
    """The settings as they are now; after a mistake in them, which is logged, the present ones.

    Args:
        current: what the daemon runs with.
        reload: reads them; may raise ConfigError.
        log: gets what came of it.
    """
    try:
        new = reload()
    except ConfigError as error:
        log.warning("config.refused", why=str(error))
        return current
    changes = diff(current, new)
    set_level(new.log_level)
    log.info(
        "config.reloaded",
        applied=",".join(changes.reloadable),
        needs_restart=",".join(changes.restart),
    )
    return new
