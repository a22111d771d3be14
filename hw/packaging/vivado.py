"""A script for Vivado's IP packager. No one has run it: there is no Vivado here."""

from ..origin import commented
from .module import LIBRARY, VENDOR, VERSION, Packaged

__all__ = ["script"]

SCRIPT = """\
{comment}
#
# Packages {name} for Vivado's IP catalogue: vivado -mode batch -source {name}.tcl
# UNTESTED: written after AMD's documentation (UG1118), and never run in Vivado.
set folder [file dirname [file normalize [info script]]]
create_project -in_memory package_{name}
add_files -norecurse [file join $folder {file}]
set_property top {name} [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir [file join $folder {name}_ip] -vendor {vendor} -library {library} \\
  -taxonomy /UserIP -import_files -set_current true
set core [ipx::current_core]
set_property name {name} $core
set_property version {version} $core
set_property display_name {name} $core
set_property description {{{summary}}} $core
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
close_project
"""


def script(module: Packaged) -> str:
    """Return the text of ``<name>.tcl``. The packager finds buses by the attributes of the ports."""
    return SCRIPT.format(comment=commented("#"), name=module.name, file=module.file, vendor=VENDOR, library=LIBRARY,
                         version=".".join(VERSION.split(".")[:2]), summary=module.summary)
