"""Draws the rooms of the package, and which of them import from which, as their files say."""

import ast

from drawing import HERE, Drawing

__all__ = ["draw", "imports"]

ROOT = HERE.parents[1]
CONTENT = {
    "base": "checks, files", "golden": "what is computed", "hw": "circuits", "sim": "benches", "synth": "costs",
    "catalog": "units by name", "explore": "many formats", "report": "report.html", "cli": "command line",
    "host": "driver of boards", "torch": "inside PyTorch",
}


def imports() -> dict[str, dict[str, int]]:
    """Return for each room the rooms that its files import from, and from how many files."""
    rooms = [path.parent.name for path in sorted(ROOT.glob("*/__init__.py"))]
    found: dict[str, dict[str, int]] = {room: {} for room in rooms}
    for room in rooms:
        for path in (ROOT / room).rglob("*.py"):
            depth = len(path.relative_to(ROOT).parts)
            for other in sorted(roots(ast.parse(path.read_text()), depth) & {*rooms} - {room}):
                found[room][other] = found[room].get(other, 0) + 1
    return found


def roots(tree: ast.Module, depth: int) -> set[str]:
    """Return the rooms that a file so many folders deep imports from, by relative imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {each.name for each in node.names}
    return found


def floors(used: dict[str, dict[str, int]]) -> dict[str, int]:
    """Return how high each room stands: above all that it imports from. Raises ValueError for a circle."""
    heights: dict[str, int] = {}

    def height(room: str, above: tuple[str, ...]) -> int:
        if room in above:
            raise ValueError(f"{' imports '.join([*above[above.index(room):], room])}; allowed: no circle")
        if room not in heights:
            heights[room] = 1 + max((height(other, (*above, room)) for other in used[room]), default=-1)
        return heights[room]

    for room in used:
        height(room, ())
    return heights


def direct(used: dict[str, dict[str, int]]) -> list[tuple[str, str]]:
    """Return the imports that no other way leads to: (from, to)."""
    def reached(room: str) -> set[str]:
        return {*used[room]}.union(*map(reached, used[room]))

    return [(room, other) for room, others in used.items() for other in others
            if not any(other in reached(between) for between in others)]


def draw() -> None:
    """Write rooms.svg."""
    used = imports()
    heights = floors(used)
    drawing = Drawing(20 + 130 * (1 + max(heights.values())), 252, "The rooms of the package: arrows lead from each "
                      "room to those that it imports from")
    rows = {"torch": 2, "synth": 0, "host": 2, "report": 0, "cli": 2}  # the others stand in the middle
    places = {room: (20 + 130 * heights[room], 20 + 82 * rows.get(room, 1)) for room in used}
    for room, other in direct(used):
        (x, y), (left, low) = places[room], places[other]
        drawing.path([(x, y + 24), (left + 110, low + 24)], "line")
    for room, (x, y) in places.items():
        drawing.box(x, y, 110, 48, [room, CONTENT.get(room, "")], "memory" if room == "golden" else "unit")
    drawing.write("rooms")


if __name__ == "__main__":
    draw()
