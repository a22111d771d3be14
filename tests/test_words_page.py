"""The page of docs/ about random words: its streams are golden's words, and its tables are those of the results."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from narrowgauge.golden.words import blocks, key, words

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[1] / "docs")
    page = importlib.import_module("words")

REPORT = """\
rng=RNG_stdin8, seed=unknown
length= 64 mebibytes (2^26 bytes), time= 4.1 seconds
  Test Name                         Raw       Processed     Evaluation
  [Low1/8]BCFN(2+1,13-5,T)          R= +10.3  p =  3.1e-4   unusual
  [Low1/16]BCFN(2+0,13-6,T)         R= +16.0  p =  6.7e-6   mildly suspicious
  [Low1/16]FPF-14+6/16:all          R=  +7.3  p =  3.3e-6   suspicious
  [Low1/16]FPF-14+6/16:cross        R= +12.9  p =  2.4e-11   VERY SUSPICIOUS
  [Low1/32]Gap-16:B                 R= +7751  p =  1e-5529    FAIL !!!!!!!!
  ...and 430 test result(s) without anomalies
"""


def test_streams_are_golden_words():
    vectors, number = np.arange(300), key(page.SEED)
    order = words(number, 16, vectors, 8)
    assert page.first("order", 4800).tolist() == order.ravel().tolist()
    assert page.first("lane-7", 300).tolist() == order[:, 7].tolist()
    assert page.first("reverse", 16).tolist() == blocks(number, np.array([2**32 - 1], np.uint32))[0].tolist()
    nibbles = page.first("words-4", 2400)
    assert np.stack([nibbles & 15, nibbles >> 4], 1).ravel().tolist() == words(number, 16, vectors, 4).ravel().tolist()
    bits = np.unpackbits(page.first("words-1", 600), bitorder="little")
    assert bits.tolist() == words(number, 16, vectors, 1).ravel().tolist()
    assert page.first("differences", 16).tolist() == (order[1] - order[0]).astype(np.uint8).tolist()


def test_streams_over_keys_are_golden_words():
    four = np.arange(4)
    steps, uses = page.first("steps", 6400).reshape(-1, 4, 16), page.first("uses", 1 << 17).reshape(-1, 4, 16)
    for step in (0, 1, 99):
        assert np.array_equal(steps[step], words(key(page.SEED, step), 16, four, 8))
    for step, use in ((0, 0), (0, 1023), (1, 1), (1, 1023)):
        assert np.array_equal(uses[step << 10 | use], words(key(page.SEED, step), 16, four, 8, use))
    seeds = page.first("seeds", 4800).reshape(-1, 16)
    for seed in (0, 1, 299):
        assert np.array_equal(seeds[seed], words(key(seed), 16, four[:1], 8)[0])


@pytest.mark.parametrize("groups", [3, 13, 49])
def test_tiles_take_every_block_once(groups):
    order = page.tiled(groups)(np.arange(12 * groups, dtype=np.uint32))
    assert order[:5].tolist() == [0, groups, 2 * groups, 3 * groups, 1]
    assert sorted(order.tolist()) == list(range(12 * groups))


def test_a_control_with_all_lines_is_the_function():
    index = np.arange(1000, dtype=np.uint32) * np.uint32(1234567)
    assert np.array_equal(page.shortened(key(3), index, 8), blocks(key(3), index))
    assert not np.array_equal(page.shortened(key(3), index, 6), blocks(key(3), index))


def test_a_report_is_read():
    assert page.read_report(REPORT) == {"bytes": 1 << 26, "unusual": 1, "mildly": 1, "suspicious": 2, "fail": 1}


def test_results_are_whole_and_good():
    rows = page.read()
    assert list(rows) == list(page.EVERY)
    for name in [*page.STREAMS, "pcg"]:
        assert rows[name]["fail"] == "0" and int(rows[name]["bytes"]) >= page.longest(name, 1 << 28)
    assert int(rows["lines-4"]["fail"]) and int(rows["lines-2"]["fail"])


def test_page_holds_the_tables_of_the_results():
    text = page.PAGE.read_text()
    for name, content in page.tables().items():
        assert f"<!-- {name} -->\n{content}\n<!-- end -->" in text
