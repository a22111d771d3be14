"""The environment of other people's tools, without the variables of the user's shell that steer them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["replaced", "unsteered"]

# Read by cocotb, GPI, Verilator and its makefiles, GNU make, g++, perl, Yosys, nextpnr, Amaranth, YoWASP and pytest.
# Variables with search paths of the compiler stay: they belong to the machine.
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
    """Replace this process's environment within the block, for libraries that read it."""
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
