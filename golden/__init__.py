"""Golden models: NumPy only. What is computed, to the bit."""
