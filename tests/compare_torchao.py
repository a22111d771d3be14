"""Microscaling beside torchao's: where the two give the same codes, and where not.

Run ``python tests/compare_torchao.py`` where torch and torchao are installed as well; neither is needed for anything
else. What it found is in docs/mx.md.
"""

import warnings

import numpy as np
from narrowgauge.golden import mx

BLOCKS, BLOCK = 200_000, 32


def blocks(rng):
    """Random float32 blocks over the whole range; half of the numbers have short significands, some blocks are zero."""
    place = rng.integers(-149, 128, (BLOCKS, 1)) - rng.integers(0, 12, (BLOCKS, BLOCK))
    significand = rng.uniform(1, 2, (BLOCKS, BLOCK))
    short = rng.random((BLOCKS, BLOCK)) < 0.5
    significand = np.where(short, 1 + rng.integers(0, 32, (BLOCKS, BLOCK)) / 32, significand)
    with np.errstate(over="ignore"):
        x = np.ldexp(significand, place).astype(np.float32)
    x = np.where(np.isfinite(x), x, np.finfo(np.float32).max)
    x[:100] = 0
    return x * np.where(rng.random(x.shape) < 0.5, -1, 1).astype(np.float32)


def main():
    """Print, for each format and rule, how many blocks differ in the scale, and how many elsewhere."""
    warnings.filterwarnings("ignore")
    import torch
    import torchao
    from torchao.prototype.mx_formats import constants
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import to_mx

    kinds = {"fp8-e5m2": torch.float8_e5m2, "fp8-e4m3": torch.float8_e4m3fn, "fp6-e3m2": constants.DTYPE_FP6_E3M2,
             "fp6-e2m3": constants.DTYPE_FP6_E2M3, "fp4-e2m1": torch.float4_e2m1fn_x2}

    def theirs(x, name, rule):
        scales, codes = to_mx(torch.from_numpy(x), kinds[name], x.shape[1], ScaleCalculationMode[rule.upper()])
        scales, codes = (each.view(torch.uint8).numpy() for each in (scales, codes))
        if name == "fp4-e2m1":
            codes = np.stack([codes & 15, codes >> 4], axis=-1)
        return scales.reshape(len(x)), codes.reshape(x.shape)

    x = blocks(np.random.default_rng(0))
    print(f"torch {torch.__version__}, torchao {torchao.__version__}; {BLOCKS} blocks of {BLOCK}")
    for name in kinds:
        for rule in mx.SCALE_RULES:
            scales, codes = theirs(x, name, rule)
            ours = mx.quantise(x, mx.MX(name), scale_rule=rule)
            scale = ours.scales[:, 0] != scales
            element = (ours.elements[:, 0] != codes).any(axis=1) & ~scale
            print(f"  {name} {rule:6} scales differ {scale.sum()}, elements differ where the scale code is 0: "
                  f"{(element & (scales == 0)).sum()}, elsewhere: {(element & (scales > 0)).sum()}")
    # Every float32 significand, as the largest of its block.
    top = np.arange(127 << 23, 128 << 23, dtype=np.uint32).view(np.float32).reshape(-1, 1)
    for name in kinds:
        wide = np.pad(top, ((0, 0), (0, 1)))
        parts = [theirs(part, name, "rceil")[0] for part in np.split(wide, 8)]
        differ = np.flatnonzero(mx.scale_codes(top[:, 0], mx.MX(name), "rceil") != np.concatenate(parts))
        print(f"  {name} rceil: {len(differ)} of 2**23 significands in [1, 2) have another scale",
              [float(top[k, 0]).hex() for k in differ[:4]])
    for value in (np.inf, np.nan):
        y = np.ones((1, BLOCK), np.float32)
        y[0, 3] = value
        print(f"  a block with {value}:", {rule: int(theirs(y, "fp8-e4m3", rule)[0][0]) for rule in mx.SCALE_RULES})


if __name__ == "__main__":
    main()
