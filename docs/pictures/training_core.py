"""Draws the training core of `make demo`, with the sizes and the busy cycles of its units."""

from drawing import Drawing
from narrowgauge.golden import core, datasets, network, recipes

__all__ = ["draw"]

FLOWS = (
    # Points, colour, whether both ends have an arrow.
    ([(116, 166), (150, 166)], "blue", False),                                      # host to in
    ([(220, 166), (250, 166), (250, 108), (290, 108)], "blue", False),              # in to L
    ([(220, 166), (290, 166)], "blue", False),                                      # in to X
    ([(220, 166), (250, 166), (250, 290), (290, 290)], "blue", False),              # in to W
    ([(220, 166), (250, 166), (250, 350), (290, 350)], "blue", False),              # in to M
    ([(290, 312), (220, 312)], "orange", False),                                    # W to out
    ([(290, 374), (264, 374), (264, 312), (220, 312)], "orange", False),            # M to out
    ([(150, 312), (116, 312)], "orange", False),                                    # out to host
    ([(460, 100), (600, 100)], "purple", False),                                    # labels to head
    ([(460, 156), (490, 156), (490, 118), (600, 118)], "purple", False),            # logits to head
    ([(620, 130), (620, 222), (460, 222)], "purple", False),                        # errors of the head to D
    ([(460, 186), (560, 186), (560, 262), (640, 262)], "blue", False),              # operands
    ([(460, 248), (560, 248), (560, 262), (640, 262)], "blue", False),
    ([(460, 284), (560, 284), (560, 262), (640, 262)], "blue", False),
    ([(740, 262), (780, 262)], "blue", False),                                      # codes to cells
    ([(840, 215), (840, 188)], "orange", False),                                    # sums
    ([(780, 166), (460, 166)], "orange", False),                                    # results to X
    ([(780, 166), (525, 166), (525, 234), (460, 234)], "orange", False),            # results to D
    ([(840, 309), (840, 366), (740, 366)], "green", False),                         # weight gradients
    ([(640, 352), (500, 352), (500, 308), (460, 308)], "green", True),              # weights
    ([(640, 376), (460, 376)], "green", True),                                      # velocities
    ([(460, 256), (478, 256), (478, 424), (640, 424)], "purple", False),            # errors to sums
    ([(690, 404), (690, 390)], "green", False),                                     # gradients of biases
)


def run() -> tuple[core.TrainerParameters, core.Run]:
    """Return the core and the run of `make demo`."""
    data = datasets.load("digits").first(300, 100)
    recipe = recipes.keep(recipes.work_in(recipes.make("bfp"), "bf16"), update="stochastic").with_head(data.classes)
    made = core.Run(recipe, network.perceptron(data, (32,)), 300, 100, epochs=2)
    return core.trainer_of(made, rows=2, columns=2), made


def draw() -> None:
    """Write core.svg."""
    parameters, made = run()
    step, program = core.step_cycles(parameters, made), core.compiled(parameters, made)
    drawing = Drawing(920, 470, "A training core: data flows from the host to memories, through converters and cells, "
                      "and back as results, errors and moved weights")
    for points, kind, both in FLOWS:
        drawing.path(points, kind, both, flow=True)
    drawing.box(20, 20, 96, 424, ["host", "program,", "examples,", "parameters"], "other")
    drawing.box(150, 20, 750, 40, [f"sequencer: a program of {len(program.instructions)} instructions on matrices"],
                "other")
    drawing.box(150, 146, 70, 40, ["in"])
    drawing.box(150, 292, 70, 40, ["out"])
    weights = f"{parameters.weights:,} numbers"
    for at, (name, content, size) in enumerate((
            ("L", "labels", f"{parameters.labels:,} labels"),
            ("X", "activations", f"{parameters.activations:,} numbers"),
            ("D", "errors", f"{parameters.errors:,} numbers"),
            ("W", "weights", weights), ("M", "velocities", weights))):
        drawing.box(290, 84 + 62 * at, 170, 50, [f"{name}: {content}", size], "memory")
    drawing.box(600, 84, 140, 46, ["softmax head", f"busy {step.busy['head']:.0%}"])
    drawing.box(640, 238, 100, 48, ["converters", f"to {parameters.system.mantissa} bits"])
    drawing.rectangle(780, 215, 120, 94, "unit", 5)
    cells(drawing, parameters.rows, parameters.columns)
    drawing.box(780, 144, 120, 44, ["bias, ReLU, mask"])
    drawing.box(640, 342, 100, 48, ["update lanes", "weights move"])
    drawing.box(640, 404, 130, 40, ["sums of errors", f"busy {step.busy['vector']:.0%}"])
    drawing.text(900, 420, f"a step: {step.cycles:,.0f} cycles,", "note right")
    drawing.text(900, 436, f"the cells busy in {step.busy['array']:.0%}", "note right")
    legend(drawing)
    drawing.write("core")


def cells(drawing: Drawing, rows: int, columns: int) -> None:
    """Draw the array's cells in their box."""
    wide, high = 104 / columns, 62 / rows
    for row in range(rows):
        for column in range(columns):
            drawing.rectangle(788 + wide * column, 222 + high * row, wide - 4, high - 4, "first", 2)
    drawing.text(840, 301, f"{rows} x {columns} cells", "title")


def legend(drawing: Drawing) -> None:
    """Say what the colours mean."""
    for at, (kind, words) in enumerate((("blue", "operands"), ("orange", "results"), ("purple", "errors"),
                                        ("green", "updates"))):
        drawing.path([(150, 376 + 20 * at), (176, 376 + 20 * at)], kind, flow=True)
        drawing.text(184, 380 + 20 * at, words, "note left")


if __name__ == "__main__":
    draw()
