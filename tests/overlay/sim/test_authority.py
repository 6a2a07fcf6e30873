"""Tests of a simulated cluster's authority."""

from __future__ import annotations

import random
from ipaddress import IPv4Network

import pytest

from overlay.catalog.trust import Trust
from overlay.errors import AuthError
from overlay.sim.authority import Authority


def authority() -> Authority:
    return Authority(
        random.Random(1).randbytes,
        "node1",
        cidr=IPv4Network("10.0.0.0/16"),
        cidr6=None,
        block_prefix=24,
        wall=1000,
        lifetime=500,
    )


def test_what_it_certifies_is_valid_in_its_cluster_and_while_it_lasts():
    one = authority()
    member = one.membership("node2", wall=1100, lifetime=50)
    certificate = member.identity.certificate
    Trust.founded(one.cluster).check_certificate(certificate, 1120)
    with pytest.raises(AuthError):
        Trust.founded(one.cluster).check_certificate(certificate, 1000 + 86_400)
    assert certificate.name == "node2"
    Trust.founded(one.cluster).check_certificate(one.founder.identity.certificate, 1400)


def test_no_two_members_share_keys_or_serials():
    one = authority()
    members = [one.founder, *(one.membership(f"node{n}", 1000, 500) for n in range(2, 9))]
    identities = [member.identity for member in members]
    assert len({identity.node for identity in identities}) == 8
    assert len({identity.certificate.static for identity in identities}) == 8
    assert len({identity.certificate.serial for identity in identities}) == 8
