"""A reader of RTLIL, Yosys' text form of a netlist, as far as names need it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PORT", "TOKEN", "Item", "Module", "parse"]

TOKEN = re.compile(r"(?<!\S)[\\$][^\s\"]+")
PORT = re.compile(r" (input|output) \d+ ")


@dataclass
class Item:
    """A cell, a process or a connection of a module.

    Attributes
    ----------
    kind : str
        Type of the cell, ``process`` or ``connect``.
    lines : list of str
    source : (str, int) or None
        File and line of the Python code that made it.
    drives, reads : list of str
        Tokens of the wires.
    name : str or None
        Token of a submodule's instance.
    ports : dict of str to list of str
        Of a submodule's instance: tokens of the wires by token of the port.
    """

    kind: str
    lines: list[str]
    source: tuple[str, int] | None = None
    drives: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    name: str | None = None
    ports: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Module:
    """A module of RTLIL: attributes, wires and memories as lines, and items."""

    name: str
    attributes: list[str] = field(default_factory=list)
    wires: dict[str, list[str]] = field(default_factory=dict)  # token to its lines, attributes first
    sources: dict[str, tuple[str, int] | None] = field(default_factory=dict)  # of wires, by token
    memories: dict[str, list[str]] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def ports(self) -> list[str]:
        """Tokens of the wires that are ports, in the parent's order."""
        return [token for token, lines in self.wires.items() if PORT.search(lines[-1])]


def parse(text: str) -> dict[str, Module]:
    """Return the modules of RTLIL by token, in their order; their sources' attributes are taken off."""
    modules, attributes, source, lines = {}, [], None, iter(text.splitlines())
    module: Any = None
    for line in lines:
        line = line.strip()
        word = line.split(" ", 1)[0]
        if not line:
            continue
        if word == "attribute":
            if line.startswith("attribute \\src "):
                place = re.match(r'attribute \\src "([^"|]*):(\d+)', line)
                source = (place[1], int(place[2])) if place else None
            else:
                attributes.append(line)
            continue
        if word == "module":
            module = modules[line[7:]] = Module(line[7:], attributes)
        elif word == "wire":
            module.wires[line.split()[-1]] = [*attributes, line]
            module.sources[line.split()[-1]] = source
        elif word == "memory":
            module.memories[line.split()[-1]] = [*attributes, line]
        elif word == "connect":
            target, value = _split(line[8:])
            module.items.append(Item("connect", [line], source, _tokens(target), _tokens(value)))
        elif word == "cell":
            module.items.append(_cell(line, lines, attributes, source))
        elif word == "process":
            module.items.append(_process(line, lines, source))
        attributes, source = [], None
    for module in modules.values():
        for item in module.items:
            if item.kind in modules:
                for port, tokens in item.ports.items():
                    drives = " output " in modules[item.kind].wires[port][-1]
                    (item.drives if drives else item.reads).extend(tokens)
    return modules


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def _split(text: str) -> tuple[str, str]:
    """Split what follows `connect` or `assign`: a signal, which may be a concatenation, and its value."""
    if text.startswith("{"):
        end = text.index("}") + 1
        return text[:end], text[end + 1:]
    found = re.match(r"\S+(?: \[[\d:]+\])*", text)
    assert found is not None, text
    return found[0], text[found.end() + 1:]


def _cell(line: str, lines: Iterator[str], attributes: list[str], source: tuple[str, int] | None) -> Item:
    _, kind, name = line.split()
    item = Item(kind, [*attributes, line], source, name=name)
    for inner in lines:
        inner = inner.strip()
        if inner == "end":
            break
        item.lines.append(inner)
        if inner.startswith("connect "):
            port, value = inner[8:].split(" ", 1)
            tokens = _tokens(value)
            item.ports[port] = tokens
            if kind.startswith("$"):
                (item.drives if port in ("\\Y", "\\Q", "\\DATA") and kind != "$memwr_v2" else item.reads).extend(tokens)
    return item


def _process(line: str, lines: Iterator[str], source: tuple[str, int] | None) -> Item:
    item = Item("process", [line], source)
    depth = 1
    for inner in lines:
        inner = inner.strip()
        if inner.startswith("attribute "):
            continue
        item.lines.append(inner)
        if inner.startswith("switch "):
            depth += 1
            item.reads += _tokens(inner[7:])
        elif inner.startswith("assign "):
            target, value = _split(inner[7:])
            item.drives += _tokens(target)
            item.reads += _tokens(value)
        elif inner == "end":
            depth -= 1
            if not depth:
                break
    item.lines.pop()
    return item
