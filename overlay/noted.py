"""A dict that knows which of its keys have changed: whoever stores it need not look at all of it.

pods["web"] = pod      changed: web
del pods["db"]         changed: web, db
pods.take_changed()    {"web": pod, "db": None}, and nothing has changed any more
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Self, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Noted(dict[K, V]):
    """Everything a dict has; what is in it at first has changed, too."""

    __slots__ = ("_changed",)

    def __init__(self) -> None:
        super().__init__()
        self._changed: set[K] = set()

    def take_changed(self) -> dict[K, V | None]:
        """What was set since the last call, or at all, as it is now; None for what is gone."""
        changed, self._changed = self._changed, set()
        return {key: self.get(key) for key in changed}

    def __setitem__(self, key: K, value: V) -> None:
        self._changed.add(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self._changed.add(key)

    def clear(self) -> None:
        """Remove all."""
        self._changed.update(self)
        super().clear()

    if not TYPE_CHECKING:  # the signatures are a dict's, whose own methods would pass those by
        popitem = MutableMapping.popitem
        setdefault = MutableMapping.setdefault
        update = MutableMapping.update

        def pop(self, key: K, *default: V) -> V:
            """Remove a key; its value, or `default` if it is not there."""
            if default and key not in self:
                return default[0]
            value = self[key]
            del self[key]
            return value

        def __ior__(self, other: Mapping[K, V]) -> Self:
            """Set all of another mapping."""
            self.update(other)
            return self
