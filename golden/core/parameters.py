"""Parameters of a training core: capacities, never a network or a run."""

from dataclasses import dataclass
from typing import Any

from ...base.checks import require, require_int
from ..array import ArrayParameters
from ..floating import PlainSystem, require_work
from ..formats import Float
from ..logarithmic import LNSSystem
from ..madam import MadamParameters
from ..number_system import NumberSystem
from ..precision import AdaptiveParameters
from ..rounding import KINDS
from ..softmax import SoftmaxParameters
from ..systems import SystemParameters
from ..update import METHODS, RATES
from .instructions import FIELDS, WORD

__all__ = ["BANK", "COMPENSATED", "PLANES", "TrainerParameters", "side_of"]

COMPENSATED = ("kahan", "grow")  # methods that keep a compensation

PLANES = 4  # numbers that there may be for each one of W: itself, a velocity, a compensation or two old ones
BANK = 1024  # elements of a bank that is one block RAM; a memory has as many banks as a block has rows
DISTRIBUTED = 64  # words of a bank that is made of LUTs
POLICIES = ("constant", "cyclic", "adaptive")


def side_of(system: NumberSystem) -> int:
    """Return the rows and columns of a block of the memories: those of a group, or 16 where groups are smaller."""
    return max(system.group, 16)


@dataclass(frozen=True)
class TrainerParameters(SystemParameters):
    """Parameters of the unit ``trainer``.

    Parameters
    ----------
    system : NumberSystem
        As in `ArrayParameters`.
    rows, columns, sums, converters, buffer : int
        Of the array: as in `ArrayParameters`.
    vectors : int
        Vectors that each side converts in a cycle: 1 or 2.
    examples : int
        Elements of memory E, which keeps examples as 8-bit codes. 0: there is none, and examples lie in X.
    activations, errors, weights : int
        Elements of the memories X, D and W: blocks of `side` * `side`, and above `BANK` elements a bank multiples of
        that. M has as many numbers of each kind as W: velocities, and compensations where a method has them.
    labels : int
        Of memory L, 256 to 65,536, in steps of 256.
    merged : bool
        X, D and W are one memory, of their elements together, with one read port: for one converter.
    windows : bool
        Whether there are windows and taps, which convolutions need.
    parameters : Float, optional
        Format of W and M: None is the work format.
    updates : tuple of str
        Methods that parameters can be moved by: of `update.METHODS`.
    rates : str
        Of the lanes: float, or powers. With powers learning rate, momentum and decay are 0 or powers of two, and no
        lane multiplies.
    decays : bool
        Whether weights decay. Without it a lane has a product and an addition less.
    update_bits : int
        Random bits of the stochastic update.
    loss_scale : bool
        Whether errors, and so velocities, may have a loss scale. Then a step may be skipped, and M also has what
        parameters and velocities were before a step.
    madam : MadamParameters, optional
        Weights are logarithmic codes that Madam moves: then M has second moments in place of their velocities, and
        `updates` are for biases.
    lanes : int
        Parameters that are moved in a cycle: 1, 2, 4, 8 or 16.
    adders : int
        Results that get their bias in a cycle, and errors that are summed in one: 1, 2, 4, 8 or 16.
    classes, error_bits, error_rounding : int, int, str
        Of the softmax head: see `SoftmaxParameters`. By default the errors have as many bits as the work format can
        use.
    logits : Float, optional
        The format in which the head takes logits: None is the work format.
    head : int
        Logits that the head takes in a cycle: 1, 2 or 4.
    policies : tuple of str
        What may choose precisions: of constant, cyclic, adaptive.
    layers : int
        Layers whose tensors may choose their precisions, with adaptive: a power of two from 2 to 32.
    program : int
        Instructions: a power of two from 64 to 4,096.
    stream : int
        Elements that the host's streams bring in a cycle: 1 to 16.
    """

    system: NumberSystem = "bfp"  # type: ignore[assignment]  # a NumberSystem, once made
    rows: int = 4
    columns: int = 4
    sums: int = 16
    converters: int = 2
    buffer: int = 8192
    vectors: int = 1
    examples: int = 0
    activations: int = 16384
    errors: int = 16384
    weights: int = 16384
    labels: int = 1024
    merged: bool = False
    windows: bool = False
    parameters: Float = None  # type: ignore[assignment]  # None is the work format
    updates: tuple[str, ...] = ("plain", "stochastic")
    rates: str = "float"
    decays: bool = True
    update_bits: int = 8
    loss_scale: bool = False
    madam: MadamParameters | None = None
    lanes: int = 1
    adders: int = 4
    classes: int = 10
    error_bits: int | None = None
    error_rounding: str = "nearest"
    logits: Float = None  # type: ignore[assignment]  # likewise
    head: int = 1
    policies: tuple[str, ...] = ("constant",)
    layers: int = 4
    program: int = 512
    stream: int = 4

    def __post_init__(self) -> None:
        self.resolve()
        if isinstance(self.madam, dict):
            object.__setattr__(self, "madam", MadamParameters.from_json(self.madam))
        require(self.madam is None or isinstance(self.madam, MadamParameters), "madam", self.madam,
                "null, or the parameters of madam-update as an object")
        if self.madam:
            require(isinstance(self.system, LNSSystem) and self.madam.narrow == self.system.format, "madam", self.madam,
                    "null, or one whose narrow weights are the operands of logarithmic numbers")
        for name in ("updates", "policies"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        require_work(self.work)
        self.array, self.plain  # noqa: B018  # their own checks
        require(self.vectors in (1, 2) and type(self.vectors) is int, "vectors", self.vectors, "1, 2")
        block = self.side**2
        for name in ("examples", "activations", "errors", "weights"):
            value, bank = getattr(self, name), BANK * self.side
            require(type(value) is int and value % (block if value <= bank else bank) == 0
                    and (value > 0 or name == "examples" and value == 0) and value // block <= 1 << FIELDS["block"][0],
                    name, value, f"a multiple of {block} up to {bank}, or of {bank} up to "
                    f"{block << FIELDS['block'][0]}" + (", or 0" if name == "examples" else ""))
        require(type(self.labels) is int and 256 <= self.labels <= 65536 and self.labels % 256 == 0, "labels",
                self.labels, "a multiple of 256 from 256 to 65536")
        for name in ("merged", "windows", "loss_scale"):
            require(type(getattr(self, name)) is bool, name, getattr(self, name), "true, false")
        require(not self.merged or self.converters == 1, "converters", self.converters,
                "1, because the memories are merged and have one read port")
        require_work(self.stored)
        require(isinstance(self.updates, tuple) and len(self.updates) > 0 and
                all(each in METHODS for each in self.updates), "updates", self.updates,
                f"some of {', '.join(METHODS)}")
        require(self.rates in RATES, "rates", self.rates, ", ".join(RATES))
        require(type(self.decays) is bool, "decays", self.decays, "true, false")
        require_int("update_bits", self.update_bits, 1, 16)
        require(not self.loss_scale or self.updates == ("plain",) and self.madam is None, "loss_scale", True,
                'false, because updates are not ["plain"] alone')
        for name in ("lanes", "adders"):
            value = getattr(self, name)
            require(type(value) is int and value in (1, 2, 4, 8, 16), name, value, "1, 2, 4, 8, 16")
        require(self.error_rounding in KINDS, "error_rounding", self.error_rounding, ", ".join(KINDS))
        require(self.softmax.bits <= self.work.mantissa + 2, "error_bits", self.softmax.bits,
                f"at most {self.work.mantissa + 2}, so that each is a number of the work format")
        require(type(self.head) is int and self.head in (1, 2, 4), "head", self.head, "1, 2, 4")
        require(isinstance(self.policies, tuple) and all(each in POLICIES for each in self.policies) and
                "constant" in self.policies, "policies", self.policies, "constant, and some of cyclic, adaptive")
        require(self.policies == ("constant",) or self.system.adaptive, "policies", self.policies,
                "constant, because the number system has no precision that may change")
        require(type(self.layers) is int and self.layers in (2, 4, 8, 16, 32), "layers", self.layers, "2, 4, 8, 16, 32")
        if "adaptive" in self.policies:
            self.statistics  # noqa: B018  # its own checks
        require(type(self.program) is int and 64 <= self.program <= 4096 and self.program & (self.program - 1) == 0,
                "program", self.program, "a power of two from 64 to 4096")
        require_int("stream", self.stream, 1, 16)

    def to_json(self) -> dict:
        """Return the parameters as a dict of plain JSON values."""
        lists = {name: list(getattr(self, name)) for name in ("updates", "policies")}
        return super().to_json() | lists | {"madam": self.madam and self.madam.to_json()}

    @property
    def side(self) -> int:
        """Rows and columns of a block of the memories: see `side_of`."""
        return side_of(self.system)

    @property
    def work(self) -> Float:
        """The format of X and D."""
        return self.system.work

    @property
    def stored(self) -> Float:
        """The format of W and M."""
        return self.parameters or self.work

    @property
    def element_bits(self) -> int:
        """Bits of an element in the host's streams."""
        return max(self.work.width, self.stored.width, 16)

    @property
    def array(self) -> ArrayParameters:
        """The array in the core. Its memory is the core's, so that its size means nothing."""
        return ArrayParameters(self.system, self.rows, self.columns, self.sums, self.converters, buffer=self.buffer)

    @property
    def plain(self) -> PlainSystem:
        """How columns of errors are summed."""
        return PlainSystem(self.work, getattr(self.system, "chunk", None))

    @property
    def softmax(self) -> SoftmaxParameters:
        """The head."""
        bits = min(16, self.work.mantissa + 2) if self.error_bits is None else self.error_bits
        return SoftmaxParameters(self.logits or self.work, self.classes, bits, self.error_rounding)

    @property
    def statistics(self) -> AdaptiveParameters:
        """What tensors choose their precisions by."""
        system: Any = self.system
        return AdaptiveParameters(system.group, system.mantissa, system.exponent)

    @property
    def blocks(self) -> dict[str, int]:
        """Blocks of each memory: of `side` * `side` elements, of L of 256 labels."""
        block = self.side**2
        return {"E": self.examples // block, "X": self.activations // block, "D": self.errors // block,
                "W": self.weights // block, "L": self.labels // 256}

    @property
    def width(self) -> int:
        """Results that leave the cells in a cycle: a part of a row of cells, or those of whole rows side by side."""
        most = max(self.adders, self.lanes)
        return most // self.columns * self.columns or most

    @property
    def planes(self) -> int:
        """Planes of M: velocities, and compensations where a method keeps them."""
        return 2 if set(COMPENSATED) & set(self.updates) else 1

    @property
    def kept_planes(self) -> int:
        """Planes of M in all: with a loss scale there are old parameters and old velocities."""
        return self.planes + 2 * self.loss_scale

    @property
    def block_rams(self) -> dict[str, int]:
        """Block RAMs of 18 kbit, 1,024 x 18 or 512 x 36, that each memory takes.

        A bank of 64 words or fewer is made of LUTs. ``array`` are the buffers of converted vectors and the ring of
        results, ``statistics`` the sums by which tensors choose their precisions.
        """
        side, work, kept = self.side, self.work.width, self.stored.width
        kept = max(kept, self.madam.weight.bits if self.madam else 0)

        def rams(words: int, bits: int) -> int:
            return 0 if words <= DISTRIBUTED else min(-(-words // BANK) * -(-bits // 18),
                                                      -(-words // (BANK // 2)) * -(-bits // 36))

        banked = {"E": (self.examples, 8), "X": (self.activations, work), "D": (self.errors, work),
                  "W": (self.weights, kept)}
        found = {name: side * rams(size // side, bits) for name, (size, bits) in banked.items()}
        # M has banks for the lanes, of each plane its own.
        found["M"] = self.kept_planes * self.lanes * rams(self.weights // self.lanes, kept)
        if self.merged:
            wide = max(work, kept)
            found |= {"X": side * rams((self.activations + self.errors + self.weights) // side, wide), "D": 0, "W": 0}
        if "adaptive" in self.policies:
            p = self.statistics
            found["statistics"] = sum(rams(kinds * self.layers << p.exponent, 2 * p.bits)
                                      for kinds in ((3,) if self.converters == 1 else (2, 1)))
        cells = self.rows * self.columns
        return found | {"L": rams(self.labels, 16), "program": rams(self.program, WORD),
                        "array": (self.rows + self.columns) * rams(self.array.words, self.system.vector_bits) + rams(
                            BANK // 2, cells * self.system.accumulator.width)}
