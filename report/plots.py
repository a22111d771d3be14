"""The report's plots, as SVG; the same bytes every time."""

import io
import re

from .cases import RECIPES
from .words import number

__all__ = ["INK", "cost", "course", "learning", "standing_alone", "svg_of"]

# Text and lines of a plot. Inside the page they take the colour of its text, light or dark.
INK = "#1f2328"


def learning(results):
    """Return the curves of the trainings as an <svg> element."""
    def draw(figure):
        loss, test = figure.subplots(1, 2)
        for entry in results["training"]:
            colour = RECIPES[entry["recipe"]]
            epochs = [row["epoch"] for row in entry["median"]]
            for axes, key in ((loss, "loss"), (test, "test")):
                for run in entry["runs"]:
                    axes.plot(epochs, [row[key] for row in run["history"]], color=colour, linewidth=0.8, alpha=0.55)
                axes.plot(epochs, [row[key] for row in entry["median"]], color=colour, linewidth=2.4,
                          label=entry["recipe"])
        loss.set(xlabel="epoch", title="Loss (training part)", yscale="log")
        test.set(xlabel="epoch", title="Test accuracy")
        figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        for axes in (loss, test):
            axes.xaxis.get_major_locator().set_params(integer=True)

    return svg_of("learning curves", draw, height=3.6)


def course(title, history):
    """Return the curves of one training, rows of epoch, loss and accuracies, as an <svg> element."""
    def draw(figure):
        loss, accuracy = figure.subplots(1, 2)
        epochs = [row.epoch for row in history]
        loss.plot(epochs, [row.loss for row in history], color="#2f9e78", marker=".")
        accuracy.plot(epochs, [row.train_accuracy for row in history], color="#9270d4", marker=".", label="training")
        accuracy.plot(epochs, [row.test_accuracy for row in history], color="#2f9e78", marker=".", label="test")
        loss.set(xlabel="epoch", title="Loss (training part)")
        accuracy.set(xlabel="epoch", title="Accuracy")
        accuracy.legend()
        figure.suptitle(title)
        for axes in (loss, accuracy):
            axes.xaxis.get_major_locator().set_params(integer=True)

    return svg_of(title, draw, height=3.6)


def cost(results):
    """Return what multiply-accumulates cost as an <svg> element."""
    entries = [entry for entry in results["synthesis"] if entry["cost"]]
    labels = [entry["label"].replace(" ", "\n") for entry in entries]
    kinds = (("chunk_cost", -0.2, "#2f9e78", "2-bit chunk products"),
             ("cost", 0.2, "#9270d4", "products at the generated precision"))

    def draw(figure):
        sides = figure.subplots(1, 2, sharey=True)
        quantities = (("luts_per_mac", ".1f", "LUTs per MAC per cycle"),
                      ("million_macs_per_second_per_1000_luts", ",.0f", "Million MACs per second per 1,000 LUTs"))
        for axes, (key, form, title) in zip(sides, quantities, strict=True):
            for kind, offset, colour, name in kinds:
                rows = [(row + offset, entry[kind][key]) for row, entry in enumerate(entries) if entry[kind]]
                bars = axes.barh([row for row, _ in rows], [value or 0 for _, value in rows], 0.38, color=colour,
                                 label=name)
                axes.bar_label(bars, [number(value, form) for _, value in rows], padding=3)
            axes.set(title=title)
            axes.margins(x=0.15)
            axes.grid(axis="y", visible=False)
        sides[0].set_yticks(range(len(entries)), labels)
        sides[0].invert_yaxis()
        figure.legend(*sides[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return svg_of("cost per multiply-accumulate", draw, height=1.5 + 0.6 * len(entries))


def svg_of(name, draw, height):
    """Return what `draw` puts into a figure as the text of an <svg> element; the same bytes every time."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "axes.titlesize": 11,
             "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
             "grid.alpha": 0.2, "grid.color": INK, "legend.frameon": False,
             "figure.facecolor": "none", "axes.facecolor": "none"}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    text = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what the user's own matplotlibrc says
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=(9.6, height), layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg "):], flags=re.S)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # names that plots in one page would share
    return svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def standing_alone(svg):
    """Return the plot as a file of its own, on white."""
    return '<?xml version="1.0" encoding="utf-8"?>\n' + svg.replace("<svg ", '<svg style="background: #fff" ', 1)
