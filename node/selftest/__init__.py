"""Checks with real bytes, at start, that each kernel offload delivers intact data.

Reading order:

    udp    UDP_SEGMENT and UDP_GRO, over a loopback
    tun    checksum, TSO and USO, between two TUN interfaces in namespaces made for it
    check  both of them, as the daemon runs them

A kernel, driver or virtual machine that claims an offload and corrupts data with it is rare and
would cost data, silently. So what is negotiated is tried before it is used, with the very code that
uses it later; what fails is left off. Nothing is left behind: the namespaces have no names, and
what lives in them is closed at the end.
"""
