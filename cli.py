# amaranth: UnusedElaboratable=no
"""The command line."""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path

from . import __version__

__all__ = ["main"]

EPILOG = """\
examples:
  narrowgauge list
  narrowgauge generate bfp-fmac --set group=16 --set accumulator=bf16 -o fmac.v
  narrowgauge simulate bfp-converter --vectors 20000 --waves converter.fst
  narrowgauge train --recipe bfp --set mantissa=4 --data digits
  narrowgauge synth bfp-fmac --target ecp5 --seeds 3 --json -
  narrowgauge report
"""


def main(arguments=None):
    """Run the command line; return its exit status: 0, 1 for mismatches or a misfit, 2 for an error."""
    options = _parser().parse_args(arguments)
    # Imported only now: --help answers at once, without NumPy and Amaranth.
    from .golden.errors import MissingExtra
    try:
        return options.run(options) or 0
    except (ValueError, MissingExtra, OSError, RuntimeError) as error:
        text = str(error) if not isinstance(error, OSError) else f"{error.filename}: {error.strerror}"
        print(f"narrowgauge {options.verb}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"narrowgauge {options.verb}: interrupted", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser(
        prog="narrowgauge", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
        description="Generate, simulate and synthesise hardware that trains neural networks in narrow numbers.")
    parser.add_argument("--version", action="version", version=f"narrowgauge {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name, run, summary, detail=""):
        verb = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {detail}".strip(),
                                formatter_class=argparse.RawDescriptionHelpFormatter)
        verb.set_defaults(run=run)
        return verb

    def add_unit(verb):
        verb.add_argument("unit", metavar="UNIT", help="a name that `narrowgauge list` shows")
        verb.add_argument("--set", metavar="NAME=VALUE", action="append", default=[],
                          help="set a parameter of the unit (repeatable); formats by preset name or as JSON")

    def add_json(verb):
        verb.add_argument("--json", metavar="FILE", help="also write the result as JSON (- for standard output)")

    verb = add("list", _list, "show the units, their parameters and defaults")
    verb.add_argument("--json", metavar="FILE", nargs="?", const="-", help="as JSON (default: standard output)")

    verb = add("generate", _generate, "write a unit's Verilog",
               "Plain Verilog-2005, the same bytes every time; its header explains every port.")
    add_unit(verb)
    verb.add_argument("-o", "--output", metavar="FILE", help="the file (default: standard output)")

    verb = add("simulate", _simulate, "hold a unit's Verilog against its golden model, bit for bit",
               "Random, directed and recorded vectors under random stalls; exit status 1 if any code differs.")
    add_unit(verb)
    verb.add_argument("--vectors", metavar="N", type=_count, default=10000, help="transfers to drive (default 10000)")
    verb.add_argument("--seed", metavar="S", type=_natural, default=1, help="seed of vectors and stalls (default 1)")
    verb.add_argument("--waves", metavar="FILE", help="write a waveform (VCD)")
    add_json(verb)

    verb = add("train", _train, "train a network with the golden model",
               "A 64-32-10 perceptron on digits by default. Same seed, same digest.")
    verb.add_argument("--recipe", metavar="NAME", default="bfp",
                      help="fp32, bfp, fp16, mx, lns-madam, fast or cpt (default bfp)")
    verb.add_argument("--set", metavar="NAME=VALUE", action="append", default=[],
                      help="set a parameter of the recipe (repeatable), such as mantissa=4, gradients_mantissa=2, "
                           "weights_rounding=truncate, group=16, accumulator=bf16; of fp16: chunk=64, "
                           "loss_scale=1024, growth_interval=100 (each a number or null); of mx: element=fp8-e4m3, "
                           "gradients_element=fp8-e5m2, block=32; of lns-madam: constants=4, accumulator=24, lsb=13, "
                           "rate=7, rate_drops=[0.6,0.8], weights_bits=12, second_bits=9, second_gamma=4, "
                           "update=sgd; of fast: alpha=0.6, beta=0.3, reverse=true; of cpt: low=3, high=8, cycles=32, "
                           "gradients=8; of bfp, for each kind of tensor: "
                           "weights_precision='{\"policy\": \"cyclic\", \"low\": 3, \"high\": 8, \"cycles\": 32}'")
    verb.add_argument("--data", metavar="NAME", default="digits",
                      help="digits, fashion-mnist, letter, clusters-N (synthetic, N classes) or idx:/folder "
                           "(default digits)")
    verb.add_argument("--examples", metavar="N[,N]", help="only the first N training (and test) examples")
    verb.add_argument("--seed", metavar="S", type=_natural, default=1, help="default 1")
    verb.add_argument("--epochs", metavar="N", type=_count, default=20, help="default 20")
    verb.add_argument("--lr", metavar="R", type=float, default=0.1,
                      help="learning rate of SGD; lns-madam's weights have their own, see rate (default 0.1)")
    verb.add_argument("--batch", metavar="N", type=_count, default=32, help="default 32")
    verb.add_argument("--model", metavar="NAME", default="mlp",
                      help="mlp, or cnn: two 3x3 convolutions and a linear layer (default mlp)")
    verb.add_argument("--hidden", metavar="N[,N...]",
                      help="sizes of the hidden layers (default 32), or channels of the convolutions (default 8,16)")
    verb.add_argument("--softmax-bits", metavar="B", type=_count,
                      help="take the errors p - y from the unit softmax-grad, in B bits (2 to 16)")
    verb.add_argument("--softmax-rounding", metavar="KIND",
                      help="of those errors: nearest, truncate or stochastic (default nearest); without "
                           "--softmax-bits, in as many bits as the number of classes needs")
    verb.add_argument("--batch-norm", action="store_true", help="normalise hidden layers by the batch's statistics")
    verb.add_argument("--update", metavar="KIND", default="plain",
                      help="how SGD moves parameters: plain, stochastic, kahan, grow (default plain)")
    verb.add_argument("--parameters", metavar="FORMAT",
                      help="in which parameters, velocities and compensations are kept: bf16, fp16, fp32, ..., or JSON "
                           "(default: what the recipe works in)")
    verb.add_argument("--decay", metavar="D", type=float, default=0.0, help="weight decay of SGD (default 0)")
    add_json(verb)

    verb = add("synth", _synth, "synthesise a unit, place and route it, and tell what it costs",
               "Placed and routed: ecp5, ice40, gowin, nexus. Yosys only: xilinx, asic (gates, no library).")
    add_unit(verb)
    verb.add_argument("--target", metavar="NAME", required=True, help="ecp5, ice40, gowin, nexus, xilinx or asic")
    verb.add_argument("--device", metavar="NAME", help="another device of the target, such as hx8k for ice40")
    verb.add_argument("--seeds", metavar="N", type=_count, default=3, help="place-and-route seeds 1..N (default 3)")
    verb.add_argument("--placer", metavar="NAME",
                      help="another placer of nextpnr's: static, for what is very large, sa, or heap (default)")
    add_json(verb)

    verb = add("report", _report, "train, simulate, synthesise and write one report of it all",
               "Writes report.html, report.md, report.json and the plots.")
    verb.add_argument("--output", metavar="FOLDER", default="build", help="default build")
    verb.add_argument("--quick", action="store_true", help="fewer units: what `make demo` does")
    verb.add_argument("--seeds", metavar="N", type=_count, default=3, help="place-and-route seeds 1..N (default 3)")
    return parser


def _count(text):
    value = int(text) if text.isascii() and text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: an integer of 1 or more")
    return value


def _natural(text):
    if not (text.isascii() and text.isdecimal()) or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: an integer from 0 to {2**31 - 1}")
    return int(text)


def _settings(pairs):
    """Return {name: value} of NAME=VALUE arguments; a value is JSON, or else text."""
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--set is {pair!r}; allowed: NAME=VALUE")
        if name in settings:
            raise ValueError(f"--set names {name!r} twice; allowed: once")
        settings[name] = _value(text)
    return settings


def _value(text):
    """Return what JSON text means, or else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _sizes(name, text, allowed):
    """Return the integers of N[,N...], or None for no text."""
    try:
        return tuple(int(size) for size in text.split(",")) if text is not None else None
    except ValueError:
        raise ValueError(f"{name} is {text!r}; allowed: {allowed}") from None


def _versions(*packages):
    versions = {"narrowgauge": __version__, "python": sys.version.split()[0]}
    return versions | {package: importlib.metadata.version(package) for package in ("numpy", *packages)}


def _write(path, text):
    """Write a file whole or not at all."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; allowed: a file")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is no folder; allowed: one that exists")
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(scratch, 0o666 & ~umask)
    os.replace(scratch, path)


def _write_json(target, data):
    text = json.dumps(data, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    elif target:
        _write(target, text)


def _say(options, text):
    """Print a result line, unless standard output is the JSON's."""
    if options.json != "-":
        print(text)


def _progress(text):
    """Show progress on a terminal; stay quiet in a pipe."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _progress_done():
    _progress("")


def _warn(options, parameters):
    """Print what is doubtful in parameters that are allowed: one line."""
    if getattr(parameters, "warning", None):
        print(f"narrowgauge {options.verb}: warning: {parameters.warning}", file=sys.stderr)


def _list(options):
    from . import catalog
    # A parameter that `to_json` leaves out has the default null.
    units = [{"unit": unit.name, "summary": unit.summary, "parameters": dict.fromkeys(
        field.name for field in dataclasses.fields(unit.parameters)) | unit.parameters().to_json()}
        for unit in catalog.UNITS.values()]
    if options.json:
        _write_json(options.json, {"tools": _versions("amaranth"), "units": units})
        return
    for unit in units:
        print(f"{unit['unit']}: {unit['summary']}")
        print("  " + ", ".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}"
                               for name, value in unit["parameters"].items()))


def _generate(options):
    from . import catalog
    unit = catalog.find(options.unit)
    parameters = unit.configure(_settings(options.set))
    _warn(options, parameters)
    text = unit.verilog(parameters)
    if options.output:
        _write(options.output, text)
    else:
        sys.stdout.write(text)


def _simulate(options):
    from . import catalog
    from .golden.errors import MissingExtra
    from .sim import runner
    unit = catalog.find(options.unit)
    parameters = unit.configure(_settings(options.set))
    _warn(options, parameters)
    tools = runner.simulator()
    _progress("computing vectors")
    recorded = True
    try:
        vectors = unit.vectors(parameters, options.vectors, options.seed)
    except MissingExtra as error:
        _say(options, f"no recorded vectors: {error}")
        recorded = False
        vectors = unit.vectors(parameters, options.vectors, options.seed, record=False)
    _progress("building the simulator and running the bench")
    outcome = runner.run(unit.component(parameters), unit.module_name(parameters), vectors, seed=options.seed,
                         waves=options.waves, text=unit.verilog(parameters))
    _progress_done()
    _say(options, f"{unit.name}: {outcome.vectors} vectors, {outcome.mismatches} mismatches, {outcome.cycles} cycles, "
                  f"seed {options.seed}, Verilator {tools['verilator']}")
    for entry in outcome.report:
        print(entry, file=sys.stderr)
    _write_json(options.json, {
        "unit": unit.name, "parameters": parameters.to_json(), "simulator": tools, "seed": options.seed,
        "vectors": outcome.vectors, "recorded": recorded, "mismatches": outcome.mismatches, "cycles": outcome.cycles,
        "latency": outcome.latency, "tools": _versions("amaranth", "cocotb", "verilator"),
    })
    return 1 if outcome.mismatches else 0


def _train(options):
    from .golden import datasets, network, recipes
    from .golden.formats import require
    from .golden.softmax import SoftmaxParameters
    parameters = None if options.parameters is None else _value(options.parameters)
    recipe = recipes.keep(recipes.make(options.recipe, **_settings(options.set)), parameters, options.update)
    hidden = _sizes("hidden", options.hidden, "sizes such as 32 or 64,32")
    examples = _sizes("examples", options.examples, "numbers such as 8000 or 8000,2000") or ()
    require(len(examples) <= 2, "examples", options.examples, "numbers such as 8000 or 8000,2000")
    data = datasets.load(options.data).first(*examples, *[None] * (2 - len(examples)))
    if options.softmax_bits is not None or options.softmax_rounding is not None:
        head = SoftmaxParameters(classes=data.classes, bits=options.softmax_bits,
                                 rounding=options.softmax_rounding or "nearest")
        _warn(options, head)
        recipe = dataclasses.replace(recipe, softmax=head)

    def progress(epoch, epochs, row):
        _progress(f"epoch {epoch}/{epochs}: loss {row.loss:.4f}, train {row.train_accuracy:.4f}, "
                  f"test {row.test_accuracy:.4f}")

    result = network.train(recipe, data, seed=options.seed, epochs=options.epochs, lr=options.lr,
                           batch=options.batch, model=options.model, hidden=hidden, batch_norm=options.batch_norm,
                           decay=options.decay, progress=progress)
    _progress_done()
    accuracy = result.accuracy
    _say(options, f"{recipe.name} on {data.name}, {options.epochs} epochs, seed {options.seed}: "
                  f"train accuracy {accuracy['train']:.4f}, test accuracy {accuracy['test']:.4f}")
    if recipe.scale:
        _say(options, f"loss scale {result.loss_scale}, {result.skipped} steps skipped")
    if result.precision:
        operations, passes = result.precision["bit_operations"], result.precision["passes"]
        cycles = result.precision["cycles"]
        _say(options, f"bit operations {operations['used'] / operations['fp32']:.2%} of fp32's and "
                      f"{operations['used'] / operations['static']:.2%} of the greatest precision's, "
                      f"passes {passes['used'] / passes['static']:.2%} of its {passes['static']}")
        if cycles["used"]:
            _say(options, f"cycles of a 4 x 4 array {cycles['used']}, {cycles['used'] / cycles['static']:.2%} of the "
                          f"greatest precision's")
    for raised, text in ((result.invalid, "a NaN was met"), (result.overflow, "sums or weights saturated")):
        if raised:
            _say(options, text)
    _say(options, f"digest {result.digest}")
    _write_json(options.json, {
        "recipe": recipe.name, "data": data.name, "examples": {"train": len(data.train_x), "test": len(data.test_x)},
        "seed": options.seed, "epochs": options.epochs, "lr": options.lr, "batch": options.batch,
        "model": options.model, "hidden": list(hidden or network.MODELS[options.model][1]),
        "batch_norm": options.batch_norm, "decay": options.decay, "update": options.update,
        "accuracy": accuracy, "formats": recipe.formats(),
        "chunk": recipe.chunk, "loss_scale": result.loss_scale, "skipped_steps": result.skipped,
        "invalid": result.invalid, "overflow": result.overflow,
        "digest": result.digest,
        "history": [{"epoch": row.epoch, "loss": row.loss, "train": row.train_accuracy, "test": row.test_accuracy}
                    for row in result.history],
        **({"precision": result.precision} if result.precision else {}),
        "tools": _versions(),
    })


def _synth(options):
    from . import catalog
    from .hw import verilog
    from .synth import flow
    unit = catalog.find(options.unit)
    parameters = unit.configure(_settings(options.set))
    _warn(options, parameters)
    name = unit.module_name(parameters)
    result = flow.synthesise(unit.verilog(parameters), name, verilog.ports_of(unit.component(parameters)),
                             options.target, seeds=options.seeds, device=options.device, placer=options.placer,
                             progress=_progress)
    _progress_done()
    result = {"unit": unit.name, "parameters": parameters.to_json(), **result,
              "macs_per_cycle": unit.macs(parameters) if unit.macs else None,
              "seed": list(range(1, options.seeds + 1)), "tools": _versions("amaranth") | result["tools"]}
    _say(options, flow.summary(name, result))
    _write_json(options.json, result)
    return 0 if result["fits"] else 1


def _report(options):
    from . import report
    report.write(Path(options.output), seeds=options.seeds, say=print, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
