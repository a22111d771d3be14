"""Sweep a format: how many bits of mantissa does training need, and what does a product cost in each?"""

import sys

from narrowgauge.explore import explore

SPACE = {
    "about": "Mantissas of block floating point.",
    "seeds": [1, 2],
    "targets": ["asic"],
    "settings": {"recipe": "bfp", "data": "digits", "epochs": 5, "hidden": 16},
    "grid": [{"set.mantissa": [2, 3, 4, 8], "set.group": [16]}],
}
result = explore(SPACE, *sys.argv[1:])
for row in result["rows"]:
    accuracy, gates = row["accuracy"]["median"], row["gates_per_mac"]
    print(f"{row['settings']['set']['mantissa']} bits: {accuracy:.1%}, {gates:,.0f} gates per MAC",
          "(on the front)" if "gates_per_mac" in row["pareto"] else "")
