"""The register map as text: SystemRDL, from which a C header and a page follow."""

import tempfile
from pathlib import Path

from ...golden.errors import MissingExtra
from ...golden.host.registers import APERTURE, INPUT, OUTPUT, REGISTERS, WINDOW, Field, Register

__all__ = ["header", "markdown", "systemrdl"]

ACCESS = {"r": "sw = r; hw = w;", "rw": "sw = rw; hw = r;", "w1": "sw = w; hw = r; singlepulse;",
          "w1c": "sw = rw; hw = w; onwrite = woclr;"}
NEEDS = "the header and the page need PeakRDL: pip install 'narrowgauge[registers]'"


def systemrdl() -> str:
    """Return the register map in SystemRDL 2.0."""
    lines = ["// The registers of narrowgauge's training core. Written by narrowgauge: do not edit.",
             "addrmap narrowgauge {",
             '  name = "Training core"; desc = "Registers of narrowgauge\'s training core.";',
             "  default regwidth = 32; default accesswidth = 32;"]
    for register in REGISTERS.values():
        lines += _register(register)
    for name, address, access, meaning in (
            ("input", INPUT, "w", "words for the core: any word of the window takes the next one"),
            ("output", OUTPUT, "r", "words of the core: any word of the window gives the next one")):
        lines += ["  external mem {", f'    desc = "{meaning}";',
                  f"    mementries = {WINDOW // 4}; memwidth = 32; sw = {access};",
                  f"  }} {name} @ {address:#x};"]
    return "\n".join([*lines, "};", ""])


def _register(register: Register) -> list[str]:
    lines = ["  reg {", f'    desc = "{register.meaning}";']
    access = ACCESS[register.access] if register.value is None else "sw = r; hw = na;"
    for each in register.fields or (Field("value", 0, 32, register.meaning),):
        reset = (register.value or 0) >> each.low & ((1 << each.width) - 1)
        lines.append(f'    field {{ {access} desc = "{each.meaning}"; }} '
                     f"{each.name}[{each.low + each.width - 1}:{each.low}] = {reset:#x};")
    return [*lines, f"  }} {register.name} @ {register.address:#x};"]


def _exported(module: str, kind: str, suffix: str) -> str:
    """Return what an exporter of PeakRDL makes of the map."""
    try:
        from importlib import import_module

        import systemrdl as compiler
        exporter = getattr(import_module(module), kind)()
    except ImportError as error:
        raise MissingExtra(NEEDS) from error
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "narrowgauge.rdl", Path(folder) / f"narrowgauge{suffix}"
        source.write_text(systemrdl())
        compiled = compiler.RDLCompiler()
        compiled.compile_file(str(source))
        exporter.export(compiled.elaborate().top, str(target))
        return target.read_text()


def header() -> str:
    """Return a C header, by PeakRDL; MissingExtra where it is not installed."""
    return _exported("peakrdl_cheader.exporter", "CHeaderExporter", ".h")


def markdown() -> str:
    """Return a page in Markdown, by PeakRDL; MissingExtra where it is not installed."""
    return _exported("peakrdl_markdown", "MarkdownExporter", ".md")


assert all(register.address < INPUT < OUTPUT < APERTURE for register in REGISTERS.values())
