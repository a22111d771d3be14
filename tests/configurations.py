"""Random settings of every unit, for tests that try what users might: formats of odd widths, all flags, corners.

`FIELDS` says what to draw for each field of each unit's parameters. It knows ranges, not rules: what parameters demand
of several fields together they say themselves, by refusing.
"""

import dataclasses

from narrowgauge import catalog
from narrowgauge.golden.mx import ELEMENTS
from narrowgauge.golden.systems import SYSTEMS

__all__ = ["ARRAYS", "FIELDS", "SCALED", "draw_of", "fields_of", "random_parameters", "random_settings"]


def integers(low, high, small=None):
    """Draw an integer from `low` to `high`, or of a small configuration to `small`; both ends are drawn often."""
    def draw(rng, tiny):
        top, where = high if small is None or not tiny else small, rng.random()
        return low if where < 0.15 else top if where > 0.85 else int(rng.integers(low, top + 1))
    return draw


def choices(*values):
    """Draw one of `values`."""
    return lambda rng, tiny: values[rng.integers(len(values))]


def optional(draw):
    """Draw nothing, so that the default counts, or what `draw` does."""
    return lambda rng, tiny: None if rng.random() < 0.4 else draw(rng, tiny)


def powers(low, high, small=None):
    """Draw a power of two, whose exponent is from `low` to `high`, or of a small configuration to `small`."""
    exponent = integers(low, high, small)
    return lambda rng, tiny: 1 << exponent(rng, tiny)


def floats(*names):
    """Draw one of these presets, or a Float of any width; most have Inf, NaN and the usual bias."""
    def draw(rng, tiny):
        if rng.random() < 0.25:
            return str(rng.choice(names))
        exponent = int(rng.integers(1, 6 if tiny else 12))
        mantissa = int(rng.integers(0, 6 if tiny else min(30, 32 - exponent)))
        chosen = {"type": "Float", "exponent": exponent, "mantissa": mantissa}
        if rng.random() < 0.3:
            far = 20 if rng.random() < 0.7 else 900
            chosen["bias"] = 2 ** (exponent - 1) - 1 + int(rng.integers(-far, far + 1))
        if rng.random() < 0.3:
            chosen["specials"] = str(rng.choice(["ieee", "fn", "none"]))
        if rng.random() < 0.3 or chosen.get("specials") == "none":
            chosen["overflow"] = "saturate"
        return chosen
    return draw


def logs(low, high):
    """Draw a Log of `low` to `high` bits."""
    def draw(rng, tiny):
        bits = int(rng.integers(low, high + 1))
        return {"type": "Log", "bits": bits, "gamma": 1 << int(rng.integers(0, bits - 1))}
    return draw


def elements(rng, tiny):
    """Draw an element of microscaling."""
    kind = rng.random()
    if kind < 0.4:
        return str(rng.choice(list(ELEMENTS)))
    if kind < 0.6:
        bits = int(rng.integers(3, 9))
        return {"type": "Fixed", "bits": bits, "fraction": int(rng.integers(0, bits - 1))}
    exponent, specials = int(rng.integers(1, 6)), str(rng.choice(["ieee", "fn", "none"]))
    overflow = "saturate" if specials == "none" else str(rng.choice(["saturate", "infinity"]))
    bias = {"bias": int(rng.integers(0, 9))} if rng.random() < 0.3 else {}
    return {"type": "Float", "exponent": exponent, "mantissa": int(rng.integers(1, 8 - exponent)),
            "specials": specials, "overflow": overflow, **bias}


ARRAYS = [name for name, system in SYSTEMS.items() if system.circuits]  # the number systems that have one
SCALED = ("array", "trainer")  # units whose parameters have a number system
FLAG = choices(False, True)
RARELY = choices(False, False, False, True)  # what leaves little choice to other fields
SUMS = choices(2, 4, 8, 16)
USUAL = floats("fp32", "fp16", "bf16")
DOT = {"format": logs(4, 9), "accumulation": choices("direct", "bins"), "lsb": integers(0, 40),
       "constants": optional(powers(0, 4)), "fraction": integers(4, 10)}


# The work format of a core, which is narrow or one of the usual ones.
WORKS = choices("bf16", "bf16", "fp16", "fp32", {"type": "Float", "exponent": 6, "mantissa": 9},
                {"type": "Float", "exponent": 4, "mantissa": 1}, {"type": "Float", "exponent": 8, "mantissa": 8})


def several(*values):
    """Draw some of `values`, the first one among them, as JSON has them."""
    return lambda rng, tiny: [*values[:1], *(each for each in values[1:] if rng.random() < 0.4)]


def blocks(*counts):
    """Draw a memory of so many blocks of 16 rows and columns."""
    return choices(*(256 * each for each in counts))


def madam(rng, tiny):
    """Draw Madam's parameters, or none."""
    if rng.random() < 0.6:
        return None
    bits = int(rng.integers(4, 10))
    narrow = {"type": "Log", "bits": bits, "gamma": 1 << int(rng.integers(0, bits - 1))}
    wide = {"type": "Log", "bits": 16, "gamma": narrow["gamma"] << int(rng.integers(0, 17 - bits))}
    return {"weight": wide, "narrow": narrow, "gradient": str(rng.choice(["bf16", "fp32"]))}


# What to draw for a field: by unit (or an array's number system) and name, or by name alone. None is left out.
FIELDS = {
    "group": integers(4, 64, 6), "mantissa": integers(2, 8), "exponent": integers(3, 8), "work": USUAL,
    "accumulator": USUAL, "chunks": choices("serial", "parallel"), "accumulators": SUMS,
    "format": floats("fp32", "fp16", "bf16", "fp8-e4m3", "fp8-e5m2", "fp6-e2m3", "fp4-e2m1"), "result": USUAL,
    "rounding": choices("nearest", "truncate", "stochastic"), "random_bits": integers(1, 16), "corrected": FLAG,
    "seed": integers(0, 2**31 - 2), "subnormals": choices("keep", "flush"), "multiplier": choices("dsp", "lut"),
    "latency": optional(integers(1, 6)),
    "float-multiplier.latency": optional(integers(1, 5)), "float-multiplier.result": optional(USUAL),
    "float-fma.latency": optional(integers(1, 7)), "float-fma.accumulator": optional(USUAL),
    "float-cast.latency": optional(integers(1, 3)),
    "element": elements, "block": integers(8, 64, 9), "scale_rule": choices("floor", "ceil", "even", "rceil"),
    "mx-dot.element_b": optional(elements), "mx-dot.lanes": integers(4, 64, 9),
    "lanes": integers(1, 64, 4), "lns-converter.format": logs(4, 16), "lns-decoder.format": logs(4, 16),
    **{f"lns-dot.{name}": draw for name, draw in DOT.items()}, "lns-dot.lanes": integers(4, 64, 6),
    "lns-dot.accumulator": optional(integers(8, 48)),
    "weight": logs(8, 16), "narrow": logs(4, 15), "gradient": USUAL, "second_bits": integers(6, 16),
    "second_gamma": powers(0, 4), "second_bias": integers(-128, 320), "clip": integers(1, 15),
    "madam-update.memory": integers(2, 65536), "madam-update.lanes": integers(1, 16, 2),
    "schedule": choices("pipelined", "shared"), "grow": FLAG, "compensated": FLAG, "decays": FLAG,
    "rates": choices("float", "powers"),
    "classes": integers(2, 1024, 12), "bits": optional(integers(2, 16)),
    "iterations": integers(1, 2**31 - 1, 2000), "cycles": integers(1, 64), "low": integers(2, 8),
    "high": integers(2, 8), "gradients": integers(2, 8),
    "precision-adaptive.mantissa": integers(4, 8), "precision-adaptive.fraction": integers(1, 16),
    "guard": integers(0, 16), "count": integers(1, 24), "chunk": optional(integers(1, 80, 5)),
    "rows": integers(1, 4, 2), "columns": integers(1, 4, 2), "sums": SUMS, "converters": integers(1, 2),
    "array.memory": powers(2, 13, 8), "buffer": powers(1, 11, 6), "bfp.group": powers(2, 4, 2),
    **{f"lns.{name}": draw for name, draw in DOT.items()}, "lns.lanes": powers(2, 4, 2),
    "lns.sum_bits": optional(integers(8, 48)), "int8.lanes": powers(2, 4, 2),
    "vectors": choices(1, 2), "examples": blocks(0, 0, 1, 4), "activations": blocks(1, 3, 6),
    "errors": blocks(1, 2, 4), "weights": blocks(1, 2, 4), "labels": choices(256, 768), "merged": RARELY,
    "windows": FLAG, "updates": several("plain", "stochastic", "kahan", "grow"),
    "update_bits": integers(1, 16), "loss_scale": RARELY,
    "madam": madam,
    "trainer.lanes": choices(1, 2, 4), "adders": choices(1, 2, 4, 8), "trainer.classes": integers(2, 40, 12),
    "error_bits": optional(integers(2, 9)), "error_rounding": choices("nearest", "truncate", "stochastic"),
    "logits": optional(USUAL), "head": choices(1, 2, 4), "policies": several("constant", "cyclic", "adaptive"),
    "layers": choices(2, 4, 8), "program": choices(64, 256, 1024), "stream": integers(1, 6),
    "trainer.work": WORKS, "trainer.accumulator": optional(WORKS), "trainer.parameters": optional(WORKS),
    "trainer.exponent": integers(5, 8), "trainer.buffer": powers(6, 12, 9),
    # What an array may not have is drawn, too: it is refused.
    "mx.block": powers(3, 4, 3), "mx.lanes": powers(2, 4, 2), "gradients_element": optional(elements),
    "gradients_rounding": optional(choices("nearest", "truncate")),
}


def fields_of(unit, system=None):
    """Return the fields of a unit's parameters, and of its number system, as pairs (owner, name)."""
    owners = [(unit, catalog.find(unit).parameters)] + ([(system, SYSTEMS[system])] if system else [])
    return [(owner, field.name) for owner, kind in owners for field in dataclasses.fields(kind)
            if field.name != "system"]


def draw_of(owner, name, unit=None):
    """Return what draws a value for a field, of a unit itself or of its number system."""
    return next(FIELDS[key] for key in (f"{unit}.{name}", f"{owner}.{name}", name) if key in FIELDS)


def random_settings(unit, rng, tiny=False):
    """Return random settings of a unit: its parameters take them, or refuse them with a ValueError of one line.

    Parameters
    ----------
    unit : str
    rng : numpy.random.Generator
    tiny : bool
        Draw few lanes and short formats, for what has to be cheap.

    Returns
    -------
    dict
        As `Unit.configure` takes it. One field in five is left out, unless `tiny`: the defaults are large.
    """
    system = str(rng.choice(ARRAYS)) if unit in SCALED else None
    settings = {"system": system} if system else {}
    for owner, name in fields_of(unit, system):
        value = draw_of(owner, name, unit)(rng, tiny) if tiny or rng.random() < 0.8 else None
        if value is not None:
            settings[name] = value
    if "madam" in settings and system == "lns":  # otherwise it is refused
        settings["format"] = settings["madam"]["narrow"]
    return settings


def random_parameters(unit, rng, tiny=False):
    """Return random parameters of a unit; what is refused on the way has to be refused in one line."""
    for _ in range(1000):
        settings = random_settings(unit, rng, tiny)
        try:
            return catalog.find(unit).configure(settings)
        except ValueError as error:
            assert "allowed: " in str(error) and "\n" not in str(error), settings
    raise AssertionError(f"{unit} takes none of 1000 random settings")
