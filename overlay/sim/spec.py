"""A link as a scenario has it: a preset, single values, or a preset with some values changed.

[link]
preset = "wan"
loss = 0.05
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from overlay.errors import ConfigError
from overlay.sim.link import Link
from overlay.sim.typed import partial_of

PRESETS: Final[Mapping[str, Callable[[], Link]]] = {
    "plain": Link,
    "lan": Link.lan,
    "wan": Link.wan,
    "satellite": Link.satellite,
    "terrible": Link.terrible,
}


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """A link that was written in a file."""

    link: Link

    @classmethod
    def read(cls, value: object, path: str) -> LinkSpec:
        """The link that a table describes.

        Raises:
            ConfigError: it describes none. Nothing else.
        """
        if not isinstance(value, dict):
            raise ConfigError("must be a table", path)
        rest = dict(value)
        preset = rest.pop("preset", "plain")
        if preset not in PRESETS:
            key = f"{path}.preset"
            raise ConfigError(f"must be one of {', '.join(PRESETS)}", key)
        given = partial_of(Link, rest, path)
        try:
            return cls(replace(PRESETS[preset](), **given))
        except ConfigError as error:
            raise ConfigError(str(error), f"{path}.{error.key}") from error
