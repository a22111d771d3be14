"""Draws the pictures of tutorial.md: numbers in a group, and three trainings."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from drawing import Drawing
from narrowgauge.golden import blockfloat, datasets, network, recipes
from narrowgauge.golden.formats import BlockFloat

__all__ = ["draw"]

LEFT, WIDTH = 60, 820
COLOURS = ("purple", "blue", "orange")


def numbers() -> np.ndarray:
    """Return the numbers that the tutorial quantises."""
    return np.random.default_rng(1).normal(size=16).astype(np.float32)


def group() -> None:
    """Write group.svg."""
    x = numbers()
    drawing = Drawing(920, 300, "Sixteen numbers, and what 4 bits and 2 bits under one exponent make of them")
    scale = 110 / np.abs(x).max()
    drawing.curve([(LEFT, 150), (LEFT + WIDTH, 150)], "line")
    for kind, at, words in (("first", 0, "fp32"), ("second", 80, "4 bits: 5.5 a number, with its part of the exponent"),
                            ("third", 420, "2 bits: 3.5 a number")):
        drawing.rectangle(LEFT + at, 20, 12, 12, kind)
        drawing.text(LEFT + at + 18, 30, words, "left")
    rounded = [x, *(blockfloat.quantise(x, BlockFloat(16, bits)).values() for bits in (4, 2))]
    for at in range(len(x)):
        for row, (kind, values) in enumerate(zip(("first", "second", "third"), rounded)):
            height = float(values[at]) * scale
            drawing.rectangle(LEFT + 10 + 51 * at + 12 * row, 150 - max(height, 0), 11, max(abs(height), 1), kind,
                              told=f"{values[at]:g}")
        drawing.text(LEFT + 27 + 51 * at, 290, f"{x[at]:.2f}", "note")
    drawing.write("group")


@lru_cache
def courses() -> dict[str, tuple[network.Epoch, ...]]:
    """Return the epochs of each training of the tutorial."""
    data = datasets.load("digits")
    made = {"fp32": recipes.make("fp32"), "bfp, 4 bits": recipes.make("bfp"),
            "bfp, 2 bits": recipes.make("bfp", mantissa=2)}
    return {name: network.train(recipe, data, seed=1).history for name, recipe in made.items()}


def _axes(drawing: Drawing, left: int, title: str, ticks: Sequence[float], place: Callable[[float], float]) -> None:
    drawing.text(left + 190, 24, title, "title")
    for tick in ticks:
        drawing.curve([(left, place(tick)), (left + 380, place(tick))], "thin")
        drawing.text(left - 6, place(tick) + 4, f"{tick:g}", "note right")
    for epoch in (1, 5, 10, 15, 20):
        drawing.text(left + 20 * (epoch - 1), 254, f"{epoch}", "note")


def learning() -> None:
    """Write learning.svg."""
    drawing = Drawing(920, 300, "Loss and test accuracy of digits over 20 epochs, in fp32 and in block floating point")
    panels = ((50, "loss", [0.01, 0.1, 1], lambda value: 60 - 76 * np.log10(value)),
              (510, "test accuracy", [0.7, 0.8, 0.9, 1], lambda value: 40 + 600 * (1 - value)))
    for left, title, ticks, place in panels:
        _axes(drawing, left, title, ticks, place)
        for colour, (_, rows) in zip(COLOURS, courses().items()):
            points = [(left + 20 * (row.epoch - 1), float(place(row.loss if title == "loss" else row.test_accuracy)))
                      for row in rows]
            drawing.curve([(x, round(y, 1)) for x, y in points], colour)
    for number, (colour, name) in enumerate(zip(COLOURS, courses())):
        drawing.curve([(300 + 120 * number, 280), (324 + 120 * number, 280)], colour)
        drawing.text(330 + 120 * number, 284, name, "left")
    drawing.write("learning")


def draw() -> None:
    """Write both."""
    group()
    learning()


if __name__ == "__main__":
    draw()
