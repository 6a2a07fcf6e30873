"""What `muslin sim` shows of a simulated run; the simulator itself is `overlay.sim`.

scenario file --overlay.sim.play--> Outcome --+-- report: a table, or JSON
'-- plot: SVG, or PNG where a converter is
"""
