"""Hardware: the golden models' twins as Amaranth components."""

import warnings

from amaranth.hdl import UnusedElaboratable

# A component is also made to read its ports, latency and interval, without elaborating it.
warnings.simplefilter("ignore", UnusedElaboratable)
