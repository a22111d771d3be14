"""Names in the Verilog: plain identifiers that tell where a signal comes from, and one module for equal submodules.

Amaranth writes RTLIL, Yosys' text form of a netlist. There the result of an expression is a wire ``$12``. A field of a
payload is ``\\a.elements[3].sign``, and the second signal of a name ``\\valid$7``. Yosys 0.70 takes ``\\a.elements[3]``
for a bit of ``\\a.elements`` and fails; people cannot read ``$12``. So all is renamed before Verilog is made of it.
"""

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .rtlil import PORT, TOKEN, Module, parse

__all__ = ["SEPARATOR", "plain_automatic", "tidy"]

# Between the names of a unit's module and of a module inside it. No unit's own name contains two underscores, so the
# modules of two units never clash.
SEPARATOR = "__"
START = "run_at_start"  # Yosys' signal that makes blocks run once when a simulation begins
AUTOMATIC = "yosys_"  # before the names of its other signals
# A nameless wire is called after the kind of cell that drives it: by these words, or by Yosys' own.
OPERATIONS = {
    "logic_not": "not", "reduce_bool": "any", "reduce_or": "any", "reduce_and": "all", "reduce_xor": "parity",
    "shift": "part", "shiftx": "part", "memrd_v2": "read", "process": "case", "pos": "wide",
}
# Words of Verilog and SystemVerilog that a signal could well be called.
RESERVED = """
alias always and assert assign assume automatic before begin bind bit break buf byte case cell chandle checker class
clocking config const constraint context continue cover cross deassign default design disable dist do edge else end
endcase enum event expect export extends extern final first_match for force foreach forever fork function generate
genvar global if iff ignore_bins implements implies import include initial inout input inside instance int integer
interconnect interface intersect join large let liblist library local localparam logic longint macromodule matches
medium modport module nand negedge nettype new nexttime nor not null or output package packed parameter pmos posedge
primitive priority program property protected pull0 pull1 pure rand randc randcase real ref reg reject_on release
repeat restrict return rnmos rpmos rtran scalared sequence shortint signed small soft solve specify static string
strong struct super supply0 supply1 table tagged task this throughout time timeunit tran tri type typedef union
unique unsigned until untyped use var vectored virtual void wait wand weak while wildcard wire with within wor xnor
xor
"""
KEYWORDS = frozenset(RESERVED.split())


def tidy(text: str) -> str:
    """Return RTLIL with plain identifiers, and with equal submodules written once.

    Parameters
    ----------
    text : str
        RTLIL as Amaranth writes it, with source attributes. The first module is the unit's.

    Returns
    -------
    str
        RTLIL without source attributes.
    """
    modules = parse(text)
    for module in modules.values():
        _name(module, modules)
    top = next(iter(modules))
    kept, same = {}, {}  # text to token, and token to the token of its equal
    # A parent stands before its submodules. So begin at the end: a parent is compared when its submodules have been.
    for token, module in reversed(modules.items()):
        body = _write(module, modules, same)
        same[token] = kept.setdefault(body, token)
    first, names = {}, {}
    for token in modules:
        first.setdefault(same[token], token)
    for token, named in first.items():
        name = _plain(top) if token == top else f"{_plain(top)}{SEPARATOR}{_plain(named[len(top):])}"
        while f"\\{name}" in names.values():
            name += "_1"
        names[token] = f"\\{name}"
    texts = {token: body for body, token in kept.items()}
    return "".join(
        "\n".join([*modules[token].attributes, f"module {names[token]}",
                   re.sub(r"(?m)^cell (\\\S+)", lambda found: f"cell {names.get(found[1], found[1])}", texts[token]),
                   "end\n"])
        for token in modules if token in texts)


def plain_automatic(text: str) -> str:
    """Return Verilog with plain names for the signals that Yosys adds, such as ``yosys_not_1``.

    The register behind a memory's read port, ``_0_``, is called after the memory: ``table_words_read``.
    """
    text = "endmodule".join(_named_reads(module) for module in text.split("endmodule"))
    numbers = {}

    def name(found: re.Match) -> str:
        if found[1] == "dump_module":
            return START
        return f"{AUTOMATIC}{found[1].lower()}_{numbers.setdefault(found[0], len(numbers) + 1)}"

    return re.sub(r"\\\$auto\$[\w.]+:\d+:(\w+)\$\d+ ", name, text)


def _named_reads(text: str) -> str:
    """Return a module whose registers behind read ports have names."""
    names: dict[str, str] = {}
    for register, words in re.findall(r"(?m)^\s+(_\d+_) <= (\w+)\[", text):
        wanted = f"{words}_read"
        while wanted in names.values() or re.search(rf"\b{wanted}\b", text):
            wanted += "_1"
        names.setdefault(register, wanted)
    return re.sub(r"\b_\d+_(?=[ ;])", lambda found: names.get(found[0], found[0]), text)


def _plain(token: str) -> str:
    """Return an identifier of letters, digits and underscores for a token."""
    name = re.sub(r"\$\d+", "", token[1:])
    name = re.sub(r"\W|__", "_", re.sub(r"\]?[.\[]|\]$", "_", name)).strip("_") or "signal"
    return f"n{name}" if name[0].isdigit() else name


def _nameless(token: str) -> bool:
    """Return whether Amaranth found no name for a wire: a result, a signal, or a port that is a part of one."""
    return token[0] == "$" or token.startswith("\\$") or bool(re.match(r"\\port\$\d+\$\d+$", token))


def _name(module: Module, modules: dict[str, Module]) -> None:
    """Give every wire, memory and cell of a module its name."""
    used = {START}
    count = defaultdict(int)

    def take(token: str, wanted: str) -> None:
        name = wanted
        while name in used or name.lower() in KEYWORDS or name.startswith(AUTOMATIC):
            count[wanted] += 1
            name = f"{wanted.removeprefix(AUTOMATIC)}_{count[wanted]}"
        used.add(name)
        module.names[token] = "\\" + name

    ports = module.ports
    for token in ports:
        if not _nameless(token):
            take(token, _plain(token))
    instances = [(item.name, item) for item in module.items if item.name and not item.kind.startswith("$")]
    for instance, _ in instances:
        take(instance, _plain(instance))
    # A wire that has a submodule's port's own name gets the submodule's name before it.
    prefixes = {}
    for instance, item in instances:
        for port, tokens in item.ports.items():
            for token in tokens:
                if re.sub(r"\$\d+$", "", token) == port and token not in ports:
                    prefixes.setdefault(token, f"{_plain(instance)}_")
    for token in (*module.wires, *module.memories):
        if token in ports or _nameless(token):
            continue
        stem = re.split(r"(?<!^)[.\[]", token, maxsplit=1)[0]
        take(token, prefixes.get(stem, "") + _plain(token) + ("_words" if token in module.memories else ""))
    _name_results(module, take)
    for item in module.items:
        if item.name and item.kind.startswith("$"):
            module.names[item.name] = item.name  # an internal cell's name is not written into Verilog


def _name_results(module: Module, take: Callable[[str, str], None]) -> None:
    """Name the results of expressions: as the source does, or else after the signal that they lead to."""
    driver: dict[str, Any] = {}
    readers = defaultdict(list)
    for item in module.items:
        for token in item.drives:
            driver.setdefault(token, item)
        for token in dict.fromkeys(item.reads):
            readers[token].append(item)
    roots = {}

    def root(token: str) -> str:
        """Return the nearest named signal that depends on a result."""
        path = []
        while token not in module.names and token not in roots:
            path.append(token)
            roots[token] = "unused"  # until it is known, and for a result that nothing reads
            following = next((item for item in readers[token] if item.drives or item.name), None)
            if following is None:
                break
            if following.drives:
                token = following.drives[0]
            else:
                roots[token] = module.names.get(following.name or "", "\\unused")[1:]
                break
        found = roots[token] if token in roots else module.names[token][1:]
        for each in path:
            roots[each] = found
        return found

    # Nameless ports stand in the parent's order. Their order of use inside is the same in equal modules.
    appearance = {token: index for index, token in enumerate(
        dict.fromkeys(token for item in module.items for token in (*item.drives, *item.reads)))}
    ports = module.ports
    inner = [token for token in module.wires if token not in ports]
    for token in [*inner, *sorted(ports, key=lambda token: appearance.get(token, -1))]:
        if token in module.names:
            continue
        # Amaranth finds a signal's name in bytecode, or gives it none, as the version of Python wants it.
        if token.startswith("\\$sig"):
            source = module.sources[token]
            said = (source and _assigned(*source)) or "signal"
            member = re.search(r"__\w+", token)  # of an interface, such as a memory's port
            take(token, said + (member[0][1:] if member else ""))
            continue
        item = driver.get(token)
        if item and item.name and not item.kind.startswith("$"):
            port = next(port for port, tokens in item.ports.items() if token in tokens)
            take(token, f"{module.names[item.name][1:]}_{_plain(port)}")
            continue
        kind = item.kind.strip("$") if item else ""
        inside = item and readers[token] and all(each.source == item.source for each in readers[token])
        said = item and item.source and not inside and _assigned(*item.source)
        if said:
            take(token, said)
        elif item and kind == "connect" and item.reads and not readers[token] and item.reads[0] in module.names:
            take(token, f"{module.names[item.reads[0]][1:]}_out")  # a part of a signal that leaves the module
        elif any(each.kind == "$dff" for each in readers[token]) and kind in ("mux", "process"):
            take(token, f"{root(token)}_next")
        else:
            take(token, f"{root(token)}_{OPERATIONS.get(kind, kind) or 'in'}")


@functools.cache
def _statements(path: str) -> dict[int, str | None]:
    """Return {line: name} of the assignments of an expression to one name in a Python file.

    A call of one of our functions does not count: its arguments are other values than its result.
    """
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    lines = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            called = node.value.func if isinstance(node.value, ast.Call) else None
            named = len(targets) == 1 and isinstance(targets[0], ast.Name)
            ours = isinstance(called, ast.Name) and called.id not in ("Cat", "Mux", "Signal")
            name = targets[0].id if named and not ours else None
            lines |= dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), name)
    return lines


def _assigned(path: str, line: int) -> str | None:
    """Return the name that a line of a Python file assigns to, or None."""
    name = _statements(path).get(line)
    return name.strip("_") or None if name else None


def _write(module: Module, modules: dict[str, Module], same: dict[str, str]) -> str:
    """Return the text between `module` and `end`, with all names replaced but those of submodules' types."""
    names = module.names
    replace = functools.partial(TOKEN.sub, lambda found: names.get(found[0], found[0]))
    out = []
    # Clock and reset, then the other ports by name: in one order wherever the module stands.
    ports = sorted(module.ports, key=lambda token: (names[token] not in ("\\clk", "\\rst"), names[token]))
    for index, token in enumerate(ports, 1):  # Yosys takes the number 0 for none
        *attributes, line = module.wires[token]
        out += [*attributes, replace(PORT.sub(rf" \1 {index} ", line))]
    wires = (lines for token, lines in module.wires.items() if token not in ports)
    for lines in (*wires, *module.memories.values()):
        out += [*lines[:-1], replace(lines[-1])]
    for item in module.items:
        inner = modules[item.kind].names if item.kind in modules else {}
        connections = []
        for line in item.lines:
            word = line.split(" ", 1)[0]
            if word == "cell":
                out.append(f"cell {same.get(item.kind, item.kind)} {names[item.name or '']}")
            elif word == "connect" and item.kind != "connect":
                port, value = line[8:].split(" ", 1)
                connections.append(f"connect {inner.get(port, port)} {replace(value)}")
            elif word == "parameter" and " \\MEMID " in line:
                memory = re.search(r'"\\(\\.*)"', line)
                assert memory is not None, line
                out.append(f'parameter \\MEMID "\\{names[memory[1]]}"')
            elif word in ("attribute", "parameter"):
                out.append(line)
            else:
                out.append(replace(line))
        if item.kind != "connect":
            out += [*sorted(connections), "end"]
    return "\n".join(out)
