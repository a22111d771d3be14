"""Hardware: the golden models' twins as Amaranth components."""

from amaranth.hdl import UnusedElaboratable

# A component is also made to read its ports, latency and interval, without elaborating it. Said to
# Amaranth, not to `warnings`, whose filters pytest replaces.
UnusedElaboratable._MustUse__silence = True
