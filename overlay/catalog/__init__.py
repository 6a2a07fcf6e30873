"""The catalog: what gossip's items mean, and what follows from them.

Reading order:

1. `records`   what a node says of itself, signed
2. `catalog`   records and deeds become routes, ranges, names
3. `blocks`    the cluster's range as a table
"""
