"""Benches: the hardware held against the golden models, code by code."""
