"""Results in words: of a synthesis, of all benches; numbers and parameters."""

import json

__all__ = ["cost_in_words", "described", "number", "verdict"]


def cost_in_words(entry):
    """Return what a unit costs, of an entry of a synthesis."""
    fmax = entry["fmax_mhz"]
    speed = (f"places and routes at {fmax['median']:.1f} MHz ({fmax['min']:.1f} to {fmax['max']:.1f})" if fmax
             else entry["note"] or "not placed")
    return f"{entry['lut']:,} LUT, {entry['ff']:,} FF; {speed}"


def verdict(results):
    """Return in a sentence whether hardware and golden model agree."""
    if not results["mismatches"]:
        return (f"The generated Verilog agrees with the golden model, bit for bit: {results['vectors']:,} vectors, "
                "0 mismatches")
    where = ", ".join(f"{entry['label']}: {entry['mismatches']:,}" for entry in results["simulation"]
                      if entry["mismatches"])
    return (f"The generated Verilog DIFFERS from the golden model: {results['mismatches']:,} mismatches in "
            f"{results['vectors']:,} vectors ({where})")


def number(value, form):
    """Return a number in a format, or a dash for None."""
    return "–" if value is None else format(value, form)


def described(value):
    """Return a described format or a set of parameters in words."""
    if not isinstance(value, dict):
        return value if isinstance(value, str) else json.dumps(value)
    return ", ".join(each if name in ("type", "rounding") else f"{name} {described(each)}"
                     for name, each in value.items())
