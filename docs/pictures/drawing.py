"""Drawings as SVG, in one style: boxes, arrows, words and curves, readable on light and on dark pages."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from narrowgauge.base.files import write_whole

__all__ = ["HERE", "Drawing"]

HERE = Path(__file__).parent

# Each drawing has a ground of its own, which turns dark together with its words.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; text-anchor: middle; }
.title { font-weight: 600; } .note { fill: #59636e; font-size: 11px; } .left { text-anchor: start; }
.right { text-anchor: end; } .code { font-family: ui-monospace, monospace; font-size: 11px; }
.ground { fill: #ffffff; stroke: #d1d9e0; } .unit { fill: #e8f1fb; stroke: #3f87d6; }
.memory { fill: #fdf0e6; stroke: #e0762d; } .other { fill: #f1f3f5; stroke: #818b98; }
.first { fill: #3f87d6; } .second { fill: #e0762d; } .third { fill: #5a9e4b; } .fourth { fill: #9a6fc4; }
.line { fill: none; stroke: #59636e; } .thin { fill: none; stroke: #d1d9e0; }
.blue { fill: none; stroke: #3f87d6; stroke-width: 1.6; } .orange { fill: none; stroke: #e0762d; stroke-width: 1.6; }
.green { fill: none; stroke: #5a9e4b; stroke-width: 1.6; } .purple { fill: none; stroke: #9a6fc4; stroke-width: 1.6; }
.head { fill: #818b98; stroke: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .note { fill: #9198a1; } .ground { fill: #0d1117; stroke: #3d444d; }
  .unit { fill: #12263d; } .memory { fill: #38210f; } .other { fill: #212830; }
  .line { stroke: #9198a1; } .thin { stroke: #3d444d; }
}
"""
# Dashes that move along a way, for readers who do not ask for less motion.
MOTION = """
.flow { stroke-dasharray: 7 5; }
@media (prefers-reduced-motion: no-preference) {
  .flow { animation: flow 0.9s linear infinite; } @keyframes flow { from { stroke-dashoffset: 12; } }
}
"""


class Drawing:
    """A picture that grows by shapes; coordinates are pixels, from the upper left corner.

    Parameters
    ----------
    width, height : int
    title : str
        The picture in a few words, for those who do not see it.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.shapes: list[str] = []
        self.rectangle(0.5, 0.5, width - 1, height - 1, "ground", 8)

    def rectangle(self, x: float, y: float, width: float, height: float, kind: str, corner: float = 0,
                  told: str = "") -> None:
        """Draw a rectangle; `told` is shown under the pointer."""
        content = f"><title>{escape(told)}</title></rect>" if told else "/>"
        self.shapes.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{corner:g}" '
                           f'class="{kind}"{content}')

    def text(self, x: float, y: float, words: str, kind: str = "") -> None:
        """Write words in one line, centred unless the kind says ``left`` or ``right``; `y` is the base line's."""
        self.shapes.append(f'<text x="{x:g}" y="{y:g}"' + (f' class="{kind}"' if kind else "") + f">{escape(words)}"
                           "</text>")

    def box(self, x: float, y: float, width: float, height: float, lines: Sequence[str], kind: str = "unit") -> None:
        """Draw a box with a title and notes below it."""
        self.rectangle(x, y, width, height, kind, 5)
        top = y + height / 2 + 4.5 - 7.5 * (len(lines) - 1)
        for at, line in enumerate(lines):
            self.text(x + width / 2, top + 15 * at, line, "note" if at else "title")

    def path(self, points: Iterable[tuple[float, float]], kind: str = "line", both: bool = False, arrow: bool = True,
             flow: bool = False) -> None:
        """Draw a way through points, with an arrow at its end, or at both ends."""
        ends = (' marker-end="url(#arrow)"' if arrow else "") + (' marker-start="url(#arrow)"' if both else "")
        places = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.shapes.append(f'<polyline points="{places}" class="{kind}{" flow" if flow else ""}"{ends}/>')

    def curve(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """Draw a way without arrows."""
        self.path(points, kind, arrow=False)

    def svg(self) -> str:
        """Return the text of the file."""
        motion = MOTION if any(' flow"' in shape for shape in self.shapes) else ""
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-label="{escape(self.title)}">',
            f"<title>{escape(self.title)}</title>", f"<style>{STYLE}{motion}</style>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse" markerUnits="userSpaceOnUse"><path d="M0,0.5 L8,4 L0,7.5 z" class="head"/>'
            "</marker></defs>", *self.shapes, "</svg>", ""])

    def write(self, name: str) -> None:
        """Write the file beside this one, whole or not at all."""
        write_whole(HERE / f"{name}.svg", self.svg())
