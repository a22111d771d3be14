"""The text of a Liberty file: groups with their attributes, whatever these mean."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..base.checks import require

__all__ = ["Group", "parse"]

TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.|\\\n)*)"|([{}();:,])|([^\s{}();:,"]+))', re.S)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)


@dataclass
class Group:
    """A group of a Liberty file: ``kind (names) { attributes and groups }``."""

    kind: str
    names: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def all(self, kind: str) -> list["Group"]:
        """Return the groups of a kind in this one."""
        return [group for group in self.groups if group.kind == kind]


def _tokens(text: str) -> Iterator[str]:
    text = COMMENT.sub(" ", text).replace("\\\n", "\n").replace("\\\r\n", "\n").rstrip()
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        require(found is not None, "liberty", text[at:at + 20], "a file in Liberty")
        assert found is not None
        at = found.end()
        string, mark, word = found.groups()
        yield f'"{string}' if string is not None else mark or word


def parse(text: str) -> Group:
    """Return the library group of a Liberty file.

    Raises
    ------
    ValueError
        The text is not in Liberty: one line.
    """
    top = Group("file", [])
    stack, tokens = [top], iter(_tokens(text))
    for token in tokens:
        if token == "}":
            require(len(stack) > 1, "liberty", "}", "a file whose braces match")
            stack.pop()
        elif token != ";":
            _statement(token, tokens, stack)
    require(len(stack) == 1, "liberty", "its end", "a file whose braces match")
    libraries = [each for each in top.all("library") if each.names]
    require(len(libraries) == 1, "liberty", f"{len(libraries)} libraries", "a file with one library")
    return libraries[0]


def _statement(name: str, tokens: Iterator[str], stack: list[Group]) -> None:
    """Read an attribute, or the head of a group, which becomes the top of the stack."""
    mark = next(tokens, "")
    words: list[str] = []
    if mark == ":":
        for token in tokens:
            if token == ";":
                break
            words.append(token.removeprefix('"'))
        stack[-1].attributes[name] = " ".join(words)
        return
    require(mark == "(", "liberty", f"{name} {mark}", "a file in Liberty")
    for token in tokens:
        if token == ")":
            break
        if token != ",":
            words.append(token.removeprefix('"'))
    after = next(tokens, "")
    if after == "{":
        group = Group(name, words)
        stack[-1].groups.append(group)
        stack.append(group)
        return
    stack[-1].attributes[name] = words
    if after == "}":
        stack.pop()  # an attribute without its semicolon ends the group
    elif after != ";":
        _statement(after, tokens, stack)
