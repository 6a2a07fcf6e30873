from __future__ import annotations

import pytest

from overlay import errors
from overlay.drops import DropReason
from overlay.errors import (
    AuthError,
    CapacityError,
    ConfigError,
    ForgedError,
    NewerError,
    OverlayError,
    RefusedError,
    StateError,
    WireError,
)
from overlay.faults import Fault


def test_every_error_descends_from_the_one_base():
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    raised = {value for value in classes if issubclass(value, Exception)}
    assert raised == {
        OverlayError, WireError, AuthError, StateError, ConfigError, CapacityError, RefusedError,
        NewerError, ForgedError,
    }  # fmt: skip
    assert all(issubclass(error, OverlayError) for error in raised)


def test_kinds_of_errors_are_told_apart_by_except():
    kinds = (WireError, AuthError, StateError, ConfigError, CapacityError, RefusedError)
    for kind in kinds:
        assert [other for other in kinds if issubclass(kind, other)] == [kind]


def test_what_is_forged_or_newer_is_told_from_what_only_fails():
    assert issubclass(NewerError, WireError)
    forged = ForgedError("no", Fault.FORGED_DEED)
    assert isinstance(forged, AuthError)
    assert (forged.fault, forged.reason) == (Fault.FORGED_DEED, DropReason.BAD_CERTIFICATE)


def test_an_auth_error_names_its_counter():
    assert AuthError("no").reason is DropReason.BAD_HANDSHAKE
    assert AuthError("no", DropReason.BAD_TAG).reason is DropReason.BAD_TAG


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (ConfigError("must be private", "--cidr"), {"key": "--cidr"}),
        (ConfigError("must be private"), {"key": ""}),
        (CapacityError("full", "items"), {"limit": "items"}),
        (CapacityError("full"), {"limit": ""}),
        (RefusedError("token-used", "it was used", "ask for another"),
         {"code": "token-used", "fix": "ask for another"}),
        (RefusedError("token-used", "it was used"), {"code": "token-used", "fix": ""}),
    ],
)  # fmt: skip
def test_the_text_is_the_message_and_the_rest_is_attributes(error, attributes):
    assert str(error) in ("must be private", "full", "it was used")
    assert {name: getattr(error, name) for name in attributes} == attributes
