"""Tests of `node.cni`."""
