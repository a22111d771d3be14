"""What mkdocs is told in Python: README is the first page, docstrings give the reference, links may leave docs/."""

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
ROOMS = ("golden", "hw", "sim", "synth", "catalog", "explore", "host", "torch", "base")
# Pages outside docs/, and where the site has them.
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def topics(room: str) -> dict[str, list[str]]:
    """Return a room's topics, files or folders, each with its modules that export names."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / room).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__init__" and exports(path):
            found.setdefault(parts[1], []).append(".".join(("narrowgauge", *parts)))
    return found


def exports(path: Path) -> bool:
    """Return whether a module has a list of its public names."""
    return any(isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
               for node in ast.parse(path.read_text()).body)


def reference() -> dict[str, str]:
    """Return the text of each page of the reference."""
    return {f"reference/{room}/{topic}.md": f"# {room}/{topic}\n\n" + "\n".join(f"::: {name}\n" for name in names)
            for room in ROOMS for topic, names in topics(room).items()}


def on_config(config: Any) -> Any:
    """Put the reference at the end of the navigation."""
    rooms: dict[str, list] = {}
    for page in reference():
        _, room, name = page.split("/")
        rooms.setdefault(room, []).append({name.removesuffix(".md"): page})
    config.nav.append({"Reference": [{room: pages} for room, pages in rooms.items()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are no files of docs/, and the files that pages link to."""
    outside = {name: (ROOT / file).read_text() for file, name in OUTSIDE.items()}
    for name, text in (outside | reference()).items():
        files.append(File.generated(config, name, content=text))
    for page in [*(ROOT / file for file in OUTSIDE), *(ROOT / "docs").rglob("*.md")]:
        for target, _ in LINK.findall(page.read_text()):
            name = place(page, target)
            if name.startswith("files/") and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / name.removeprefix("files/"))))
    return files


def place(page: Path, target: str) -> str:
    """Return where the site has what a page links to; files outside docs/ come into a folder of their own."""
    path = Path(os.path.normpath(page.parent / target)).relative_to(ROOT)
    if str(path) in OUTSIDE:
        return OUTSIDE[str(path)]
    if path.parts[0] == "docs":
        return str(path.relative_to("docs"))
    return f"files/{path}"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links to where the site has their files."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    outside = {name: ROOT / file for file, name in OUTSIDE.items()}
    source = outside.get(page.file.src_uri, ROOT / "docs" / page.file.src_uri)
    folder = os.path.dirname(page.file.src_uri)

    def turned(found: re.Match) -> str:
        return f"]({os.path.relpath(place(source, found[1]), folder or '.')}{found[2] or ''})"

    return LINK.sub(turned, markdown)
