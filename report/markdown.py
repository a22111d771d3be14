"""Blocks of a document as Markdown."""

import re
from pathlib import Path

__all__ = ["numeric", "page"]


def page(blocks):
    """Return the blocks of a document as Markdown."""
    render = {
        "heading": lambda text: f"## {text}",
        "good": lambda text: f"> {text}",
        "bad": lambda text: f"> **{text}**",
        "text": lambda text: text,
        "list": lambda items: "\n".join(f"- {item}" for item in items),
        "table": _table,
        "code": lambda lines: "\n".join(["```", *lines, "```"]),
        "plot": lambda name, caption: f"![{Path(name).stem}]({name})\n\n{caption}",
    }
    return "\n\n".join(["# narrowgauge report", *(render[kind](*content) for kind, *content in blocks)]) + "\n"


def _table(head, rows):
    marks = ["---:" if right else "---" for right in numeric(head, rows)]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in [head, marks, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def numeric(head, rows):
    """Return for each column whether only numbers are in it: numbers are set to the right."""
    return [all(re.fullmatch(r"–|[*]*[\d.,]+[*]*", row[column]) for row in rows) for column in range(len(head))]
