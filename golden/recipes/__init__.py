"""Recipes: which number format and rounding each tensor of a training run gets, by name."""

from .named import RECIPES, bfp, cpt, fast, fp16, fp32, keep, lns_madam, make, mx, system, work_in
from .recipe import LARGEST_SCALE, TENSORS, Kept, LossScale, Recipe, Stored

__all__ = [
    "LARGEST_SCALE", "Kept", "LossScale", "RECIPES", "TENSORS", "Recipe", "Stored", "bfp", "cpt", "fast", "fp16",
    "fp32", "keep", "lns_madam", "make", "mx", "system", "work_in",
]
