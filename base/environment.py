"""The environment of other people's tools: no variable that steers them comes from the user's shell."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["replaced", "unsteered"]

# What cocotb, GPI, Verilator, make's rules for Verilator, GNU make, g++, perl, Yosys, nextpnr, Amaranth, YoWASP and
# pytest read. Where a compiler finds its libraries is the machine's business and stays; so do PATH, HOME, TMPDIR and
# YOWASP_CACHE_DIR.
PREFIXES = ("AMARANTH_", "CFG_", "COCOTB_", "COVERAGE", "GPI_", "MAKE", "NEXTPNR_", "NMIGEN_", "PYGPI_", "PYTEST_",
            "SYSTEMC", "USER_", "VERILATOR_", "VK_", "VM_", "YOSYS")
NAMES = frozenset((
    "ABC", "AR", "ARFLAGS", "BASH_ENV", "CC", "CFLAGS", "CPPFLAGS", "CXX", "CXXFLAGS", "DEPENDENCIES_OUTPUT", "DEPS",
    "ENV", "GNUMAKEFLAGS", "GUI", "LDFLAGS", "LDLIBS", "LIBPYTHON_LOC", "LIBS", "LINK", "LOADLIBES", "MFLAGS",
    "NO_COLOR", "OBJCACHE", "OPT", "OPT_FAST", "OPT_GLOBAL", "OPT_SLOW", "PERL", "PERL5OPT", "PYTHON3",
    "PYTHONINSPECT", "PYTHONWARNINGS", "RANDOM_SEED", "RM", "SC_LIBS", "SIM_CMD_PREFIX", "SIM_CMD_SUFFIX",
    "SUNPRO_DEPENDENCIES", "TARGET_ARCH", "TESTCASE", "TOPLEVEL", "TOPLEVEL_LANG", "VPATH", "WAVES", "YOWASP_MOUNT",
))


def unsteered() -> dict[str, str]:
    """Return the environment of this process without the variables that steer tools."""
    return {name: value for name, value in os.environ.items() if name not in NAMES and not name.startswith(PREFIXES)}


@contextmanager
def replaced(environment: Mapping[str, str]) -> Iterator[None]:
    """Have this environment within the block, for libraries that read this process's own."""
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
