"""The two edges of the daemon, TUN and UDP, behind small ports; each has a twin in memory."""
