"""IP-XACT component descriptions, after IEEE 1685-2009 and IEEE 1685-2014."""

from collections.abc import Sequence
from xml.etree import ElementTree

from ..origin import LICENCE, ORIGIN
from ..ports import Port
from .module import LIBRARY, VENDOR, VERSION, Packaged

__all__ = ["STANDARDS", "component"]

SPACES = {
    "2009": ("spirit", "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"),
    "2014": ("ipxact", "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"),
}
STANDARDS = tuple(SPACES)
VIEW, FILES = "rtl", "verilog"
BUSES = {"s_axis": "slave", "m_axis": "master"}


class _Writer:
    """Makes elements of one standard's namespace."""

    def __init__(self, standard: str) -> None:
        self.prefix, self.space = SPACES[standard]
        ElementTree.register_namespace(self.prefix, self.space)

    def add(self, parent: ElementTree.Element | None, name: str, text: str | None = None, /,
            **attributes: str) -> ElementTree.Element:
        """Append an element to a parent, or make a root."""
        full = {f"{{{self.space}}}{key}": value for key, value in attributes.items()}
        tag = f"{{{self.space}}}{name}"
        made = ElementTree.Element(tag, full) if parent is None else ElementTree.SubElement(parent, tag, full)
        made.text = text
        return made

    def refer(self, parent: ElementTree.Element, name: str, vlnv: Sequence[str], *, own: bool = False) -> None:
        """Append a reference to something of a vendor. The names of a VLNV are attributes, in their own namespace."""
        values = dict(zip(("vendor", "library", "name", "version"), vlnv, strict=True))
        if own:
            self.add(parent, name, **values)
        else:
            made = self.add(parent, name)
            made.attrib.update(values)


def component(module: Packaged, standard: str) -> str:
    """Return a module's description as XML after a standard of `STANDARDS`.

    AXI4-Stream ports are bus interfaces by the names that Vivado has for them; every port is listed.
    """
    xml = _Writer(standard)
    later = standard == "2014"
    root = xml.add(None, "component")
    root.append(ElementTree.Comment(" " + "; ".join((ORIGIN, *(line.strip() for line in LICENCE))) + " "))
    for name, text in (("vendor", VENDOR), ("library", LIBRARY), ("name", module.name), ("version", VERSION)):
        xml.add(root, name, text)
    names = [port.name for port in module.ports]
    if module.style == "axi":
        interfaces = xml.add(root, "busInterfaces")
        for bus, role in BUSES.items():
            roles = [name for name in names if name.startswith(f"{bus}_t")]
            _interface(xml, interfaces, bus, role, "interface", "axis", {
                name.removeprefix(f"{bus}_").upper(): name for name in roles}, later)
        _interface(xml, interfaces, "aclk", "slave", "signal", "clock", {"CLK": "aclk"}, later,
                   ASSOCIATED_BUSIF=":".join(BUSES), ASSOCIATED_RESET="aresetn")
        _interface(xml, interfaces, "aresetn", "slave", "signal", "reset", {"RST": "aresetn"}, later,
                   POLARITY="ACTIVE_LOW")
    model = xml.add(root, "model")
    view = xml.add(xml.add(model, "views"), "view")
    xml.add(view, "name", VIEW)
    if later:
        xml.add(view, "componentInstantiationRef", VIEW)
        made = xml.add(xml.add(model, "instantiations"), "componentInstantiation")
        xml.add(made, "name", VIEW)
    else:
        made = view
        xml.add(made, "envIdentifier", ":*:")
    xml.add(made, "language", "verilog")
    xml.add(made, "moduleName" if later else "modelName", module.name)
    xml.add(xml.add(made, "fileSetRef"), "localName", FILES)
    ports = xml.add(model, "ports")
    for port in module.ports:
        _port(xml, ports, port, later)
    files = xml.add(xml.add(root, "fileSets"), "fileSet")
    xml.add(files, "name", FILES)
    file = xml.add(files, "file")
    xml.add(file, "name", module.file)
    xml.add(file, "fileType", "verilogSource")
    xml.add(root, "description", module.summary)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n"))


def _interface(xml: _Writer, parent: ElementTree.Element, name: str, role: str, library: str, kind: str,
               links: dict[str, str], later: bool, **parameters: str) -> None:
    """Append a bus interface; `links` has the physical port of each logical one."""
    bus = xml.add(parent, "busInterface")
    xml.add(bus, "name", name)
    xml.refer(bus, "busType", ("xilinx.com", library, kind, "1.0"), own=not later)
    abstraction = ("xilinx.com", library, f"{kind}_rtl", "1.0")
    if later:
        made = xml.add(xml.add(bus, "abstractionTypes"), "abstractionType")
        xml.refer(made, "abstractionRef", abstraction)
        maps = xml.add(made, "portMaps")
        xml.add(bus, role)
    else:
        xml.refer(bus, "abstractionType", abstraction, own=True)
        xml.add(bus, role)
        maps = xml.add(bus, "portMaps")
    for logical, physical in links.items():
        link = xml.add(maps, "portMap")
        xml.add(xml.add(link, "logicalPort"), "name", logical)
        xml.add(xml.add(link, "physicalPort"), "name", physical)
    if parameters:
        made = xml.add(bus, "parameters")
        for key, value in parameters.items():
            # The later standard has expressions for values: a string stands between quotes.
            parameter = xml.add(made, "parameter")
            if later:
                parameter.set("parameterId", f"{name}_{key}")
            xml.add(parameter, "name", key)
            xml.add(parameter, "value", f'"{value}"' if later else value)


def _port(xml: _Writer, parent: ElementTree.Element, port: Port, later: bool) -> None:
    made = xml.add(parent, "port")
    xml.add(made, "name", port.name)
    xml.add(made, "description", port.meaning)
    wire = xml.add(made, "wire")
    xml.add(wire, "direction", port.direction)
    if port.width > 1:
        vector = xml.add(xml.add(wire, "vectors") if later else wire, "vector")
        xml.add(vector, "left", str(port.width - 1))
        xml.add(vector, "right", "0")
