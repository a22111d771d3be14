"""narrowgauge: generators of hardware that trains neural networks in narrow numbers."""

__version__ = "0.1.0"
