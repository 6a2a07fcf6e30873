"""Targets for the fuzzer, and a short run of each.

Each target gives any bytes at all to one decoder, or to one way into a node, and raises when
something comes of it that must not. `scripts/fuzz` runs them under atheris, which looks for inputs
that reach new code; the tests here run them with their seeds and with what Hypothesis makes of
those.

    target.py     what a target is
    wire.py       decoders of what nodes say to each other
    packets.py    parsers of what pods say to each other
    stored.py     files, and what comes through local sockets and pipes
    strangers.py  the receive path of a node, for whoever is no member
    members.py    the same behind a session
    registry.py   all of them
"""
