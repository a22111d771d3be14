"""The report: trains, simulates and synthesises, and writes what came of it as HTML, Markdown, JSON and plots."""

from .cases import CASES, DEVICE, DEVICE_NAME, QUICK, RECIPES, Case
from .work import prepare, simulate, synthesise, train
from .writing import check, tools, write

__all__ = [
    "CASES", "DEVICE", "DEVICE_NAME", "QUICK", "RECIPES", "Case", "check", "prepare", "simulate", "synthesise",
    "tools", "train", "write",
]
