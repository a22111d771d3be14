"""Cycles that the circuit of a core takes where golden knows no reason: `Timeline` alone needs them.

``tests/sim/test_core_cycles.py`` holds those that the circuit has as constants of its own against these.
"""

from ..parameters import TrainerParameters

__all__ = [
    "ADDER", "ADDITION", "ASKED", "BEFORE", "BEHIND", "CALM", "CAST", "CHECKED", "CHOICE", "CHOSEN", "CLEARED",
    "COUNTED", "CYCLE", "DIVIDER", "ENTERED", "FETCHED", "FILLED", "FLIPPED", "GIVEN", "HALTED", "HEAD", "IDLE",
    "KEYS", "LABELLED", "LOOKED", "MADAM", "OPENED", "OUTWARD", "PARTED", "PIECES", "RATES", "READ", "RECKONED",
    "ROOM", "SEARCHED", "SEARCHES", "SETTLE", "SETTLED", "SHAPED", "TOKENS", "TOLD", "WALKED", "moved",
    "softmax_latency", "softmax_places", "update_latency",
]

# Memories and additions, as hw.core has them by these names.
READ = 4  # from a request to a memory's answer
ADDER = 6  # an addition
ADDITION = 4  # one of the sums over rows, which wait for each other
BEHIND = READ + ADDER + 1  # from the request for a bias or a mask to the piece for a memory
SETTLE = 3  # until what was written can be read

# The sequencer.
CLEARED = 128  # from a program's last instruction to where its first one is fetched
FETCHED = 3  # an instruction is fetched, and executed if nothing else is told here
CHECKED = 6  # modes of two operands, and the check of all
RECKONED = 4  # beside the bits of a number of rows: a tensor, or a part of one, is placed
SHAPED, PARTED = 44, 98  # the shape of a window or of taps is found, or that of a part of one
FLIPPED = 3  # a tensor changes places with its other half
LOOKED = 6  # the tensors of an instruction of a unit: four at the most, and two cycles for an answer
TOLD = 2  # a unit that begins with an instruction tells that it can take the next one
IDLE = 2  # the last unit tells that it has done all
HALTED = 1  # the program's end
SETTLED = 3  # the moves of a step stay
KEYS = 10  # from a new step to the key of its random words
GIVEN = 1  # beside that, a token is given to its unit
ENTERED = 3  # from there to its turn
COUNTED = 2  # from an instruction that is done to the turn of its signal
ROOM = 2  # from a token's turn to room for another one
TOKENS = 4  # waits, and signals, that a unit may have before it

# Precisions that change.
CYCLE = 12  # a kind of tensor that follows a cycle has its precision of the next step
CHOICE = 28  # a tensor chooses its precision: about 20, and some for its exponents
CHOSEN = 6  # from the last vector in the buffers to the sums of its group

# The array.
BEFORE = 2  # from where a product has come to where it can begin
ASKED = 4  # from a piece of results to the request for its bias or its mask
CALM = 3  # beside their own latency, what cells wait before a product of another step
WALKED = 1  # registers between what reads operands and the memories; with windows there is one more
FILLED = READ + 1  # from where a square has been asked for to its first vector on its way
SEARCHES, SEARCHED = 2, READ + 9  # from a product's begin to the search for scales; from its last piece to the scale
OPENED = 2  # from where the last vector of a square has left to the next request for one

# Parameters that move.
SCALER = 4  # a product with a rate
MADAM = 14  # a lane of logarithmic weights
DIVIDER = 2  # a change is divided by the loss scale
RATES = 3  # other rates, or words of another step

# Head and streams.
SOFTMAX = 28  # of the softmax unit, beside a row's logits
EMITTED = 4  # of these, those behind the exponentials
HEAD = READ + 11  # the head beside that: labels, queues, scale, waiting for a turn
CAST = 3  # a logit in the head's own format
PIECES = 8  # pieces of logits that wait, at the most
LABELLED = 2  # from an instruction's start to its first transfer
OUTWARD = READ + 2  # from a request to a transfer to the host


def softmax_latency(classes: int) -> int:
    """Return the cycles from the last logit of a row to its first error."""
    return 1 + classes + SOFTMAX


def softmax_places(classes: int) -> int:
    """Return the exponentials that the softmax unit has places for: as many as are under way, or more."""
    under_way = classes + SOFTMAX - EMITTED
    return 1 << (under_way - (under_way - 1) // (classes + 1)).bit_length()


def update_latency(parameters: TrainerParameters, biases: bool = False) -> int:
    """Return the cycles of an update lane: Madam's, or additions of its longest method, one behind the other."""
    if parameters.madam and not biases:
        return MADAM
    additions = (9 if "grow" in parameters.updates else 6) if parameters.planes > 1 else 3
    additions -= not parameters.decays
    return 2 * SCALER + additions * ADDER + 1 + (DIVIDER if parameters.loss_scale else 0)


def moved(parameters: TrainerParameters, biases: bool = False) -> int:
    """Return the cycles from a piece of gradients to where its parameters have been written."""
    return 1 + READ + update_latency(parameters, biases) + 1
