import itertools
import re

import numpy as np
import pytest
from library import SMALL
from narrowgauge.synth import liberty


@pytest.mark.parametrize(("function", "meaning"), [
    ("(!((A B)+C))", lambda a, b, c: not (a and b or c)),
    ("A' * !B | C", lambda a, b, c: not a and not b or c),
    ("(A^B)^C", lambda a, b, c: (a + b + c) % 2 == 1),
    ("A ^ B & C", lambda a, b, c: (a != b) and c),
    ("!(A & B)' C", lambda a, b, c: a and b and c),
    ("A+B C", lambda a, b, c: a or b and c),
    ("((S A) + (!S B))".replace("S", "C"), lambda a, b, c: a if c else b),
    ("1 A", lambda a, b, c: a), ("0+B", lambda a, b, c: b),
])
def test_functions_have_libertys_operators_and_precedence(function, meaning):
    table = liberty.truth_table(function, ["A", "B", "C"])
    for values in itertools.product((0, 1), repeat=3):
        index = sum(value << bit for bit, value in enumerate(values))
        assert table >> index & 1 == bool(meaning(*values)), values


@pytest.mark.parametrize("function", ["(A", "A)", "A +", "A & X", "A # B", ""])
def test_a_function_that_is_none_is_refused(function):
    with pytest.raises(ValueError, match=f"^function is {re.escape(repr(function))}; allowed: [^\n]*$"):
        liberty.truth_table(function, ["A", "B"])


def test_a_table_is_exact_where_the_function_is_bilinear_and_lines_go_on_outside():
    loads, slews = np.array([0.0, 0.1, 0.5]), np.array([0.0, 0.25, 1.0, 2.0])

    def exact(load, slew):
        return 1 + 2 * load - 3 * slew + 4 * load * slew

    table = liberty.Table(loads, slews, exact(loads[:, np.newaxis], slews))
    for load, slew in itertools.product((-0.5, 0, 0.07, 0.1, 0.3, 0.9), (-1, 0, 0.1, 0.25, 1.7, 3)):
        assert table.at(load, slew) == pytest.approx(exact(load, slew), abs=1e-12)


def test_of_a_library_gates_and_flip_flops_are_read_in_ns_and_pf():
    library = liberty.read(SMALL, 0.1)
    assert (library.name, library.voltage) == ("small", 2.0)
    assert sorted(library.cells) == ["AOI", "BUF", "DFF", "INV", "NAND", "NOR", "XOR"]  # and no latch
    nand, dff = library.cells["NAND"], library.cells["DFF"]
    assert nand.functions == {"Y": 0b0111} and nand.flipflop is None and nand.area == 2
    assert [arc.source for arc in nand.arcs["Y"]] == ["A", "B"]
    assert nand.arcs["Y"][0].delay[0].at(0.5, 0.7) == pytest.approx(0.2 + 0.5)
    assert nand.arcs["Y"][0].delay[1].at(0.5, 0.7) == pytest.approx(0.1 + 0.5)
    assert dff.functions == {"Q": 0b10} and (dff.flipflop.clock, dff.flipflop.data) == ("C", "D")
    assert [table.at(0, 0.1) for table in dff.flipflop.setup] == [0.2, 0.3]
    assert dff.energy["C"][0][1].at(0, 0.3) == pytest.approx(0.07)


def test_units_and_swapped_axes_are_turned():
    text = SMALL.replace('time_unit : "1ns"', 'time_unit : "10ps"').replace("(1, pf)", "(100, ff)")
    text = text.replace("variable_1 : total_output_net_capacitance; variable_2 : input_net_transition;",
                        "variable_2 : total_output_net_capacitance; variable_1 : input_net_transition;")
    nand = liberty.read(text, 0.1).cells["NAND"]
    assert nand.capacitance["A"] == pytest.approx(0.001)
    # What was by load is by transition, in units of 10 ps.
    assert nand.arcs["Y"][0].delay[0].at(0.7, 0.005) == pytest.approx(0.01 * (0.2 + 0.5))


def test_resets_and_complements_are_read_and_what_is_no_plain_flip_flop_is_left_out():
    q = 'pin (Q) { direction : output; function : "IQ";\n'
    pins = 'pin (R) { direction : input; capacitance : 0.01; } pin (N) { direction : output; function : "IQN"; }'
    reset = SMALL.replace('clocked_on : "C"; }', 'clocked_on : "C"; clear : "(!R)"; }').replace(
        q, f"{pins} {q}")
    dff = liberty.read(reset, 0.1).cells["DFF"]
    assert dff.flipflop.idle == {"R": 1} and dff.functions == {"Q": 0b10, "N": 0b01}
    for falling in (SMALL.replace('clocked_on : "C"', 'clocked_on : "!C"'),
                    SMALL.replace('next_state : "D"', 'next_state : "(D C)"')):
        with pytest.raises(ValueError, match="^liberty is 'small'; allowed: a library with gates, and with flip-flops"):
            liberty.read(falling, 0.1)


@pytest.mark.parametrize(("text", "message"), [
    ("", "liberty is '0 libraries'; allowed: a file with one library"),
    ("library (x) { a : b; ", "liberty is 'its end'; allowed: a file whose braces match"),
    ("library (x) { } }", "liberty is '}'; allowed: a file whose braces match"),
    ("library (x) { a b }", "liberty is 'a b'; allowed: a file in Liberty"),
    ("library (x) { }", "liberty is 'x'; allowed: a library that tells its voltage"),
    ('library (x) { nom_voltage : 1; time_unit : "1 furlong"; }',
     "liberty is '1 furlong'; allowed: a unit such as 1ns, 1pf or 1V"),
    (SMALL.replace('values ("0.2, 0.2", "0.2, 0.2")', 'values ("0.2, 0.2, 0.2")'),
     "liberty is ['setup']; allowed: tables with as many values as their indices say"),
    (SMALL.replace('index_1 ("0.0, 1.0")', 'index_1 ("0.0, one")'), "liberty is '0.0, one'; allowed: numbers"),
], ids=range(8))
def test_a_file_that_is_no_library_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        liberty.read(text, 0.1)
