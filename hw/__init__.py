"""Hardware: the golden models' twins as Amaranth components."""
