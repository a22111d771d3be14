"""Tests the random words with PractRand: makes streams of them; writes data/words.csv and the table of words.md.

``python docs/words.py list`` tells the streams, ``stream NAME`` writes one to standard output, and ``test --practrand
PATH`` pipes them into PractRand's program RNG_test. ``tables`` tests nothing; ``speed`` measures the golden model,
``cost`` the circuit.
"""

import argparse
import contextlib
import csv
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import experiments
import numpy as np
from experiments import HERE
from narrowgauge.golden import words
from narrowgauge.hw import verilog
from narrowgauge.hw.words import CountedWords
from narrowgauge.synth import flow

RESULTS, COSTS, PAGE = HERE / "data" / "words.csv", HERE / "data" / "words-cost.csv", HERE / "words.md"
SEED = 1
CHUNK = 1 << 13  # blocks made at a time, few enough for the cache
MOST = 1 << 29  # blocks of a test; a stream of single bits is short by it
UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
# PractRand's words for an anomaly, and their columns here.
LEVELS = {"unusual": "unusual", "mildly suspicious": "mildly", "suspicious": "suspicious",
          "very suspicious": "suspicious", "VERY SUSPICIOUS": "suspicious", "FAIL": "fail"}
COUNTS = ("unusual", "mildly", "suspicious", "fail")
FIELDS = ("stream", "bytes", *COUNTS)


def blocks_of_keys(keys, index):
    """Return blocks as `words.blocks` does, but each of a key of its own: keys (n,), uint64; index (n,), uint32."""
    return np.stack(words.stages(keys, index)[-1], 1).astype("<u4").view(np.uint8)


def moved(keys, word):
    """Return keys after one move of the key's chain, with a seed or a step each."""
    return blocks_of_keys(keys, word)[:, :8].copy().view("<u8")[:, 0]


def keys_of_steps(steps):
    """Return the keys of steps, of one seed."""
    return moved(moved(np.array([words.START], np.uint64), np.array([SEED], np.uint32)), steps)


def keys_of_seeds(seeds):
    """Return the keys of seeds, all of step 0."""
    return moved(moved(np.array([words.START], np.uint64), seeds), np.zeros(1, np.uint32))


def shortened(key, index, lines):
    """Return blocks of a weaker function: of lines 1 to 8 of the contract, only the first ones, an even number.

    With 8 lines it is the function itself.
    """
    def left(x, places):
        kind = x.dtype.type
        return x << kind(places) | x >> kind(8 * x.itemsize - places)

    k0, k1, k2 = (np.uint16(key >> place & 0xFFFF) for place in (0, 16, 32))
    low, high = index.astype(np.uint16) ^ k0, (index >> np.uint32(16)).astype(np.uint16)
    for line in range(1, lines, 2):
        high = high ^ (left(low, 1) & left(low, 14)) ^ {1: k1, 5: k2}.get(line, left(low, 13))
        low = low ^ (left(high, 9) & left(high, 11)) ^ left(high, 4)
    s = high.astype(np.uint32) << np.uint32(16) | low
    t = left(s, 5) ^ (left(s, 18) & left(s, 11)) ^ np.uint32(key >> 32)
    u = left(t, 9) ^ left(s, 22) ^ (left(t, 21) & left(s, 28)) ^ np.uint32(words.U)
    v = left(u, 13) ^ left(t, 27) ^ (left(s, 7) & left(u, 26)) ^ np.uint32(words.V)
    s = s ^ left(u, 3) ^ (left(v, 21) & left(u, 12))
    t = t ^ left(v, 17) ^ (left(u, 25) & left(v, 6))
    u = u ^ left(t, 9) ^ (left(s, 26) & left(t, 14))
    v = v ^ left(s, 22) ^ (left(t, 2) & left(s, 11))
    return np.stack([s, t, u, v], 1).astype("<u4").view(np.uint8)


def of_index(order, lines=None):
    """Return a source: the blocks of one key, visited in an order, which maps positions to indices."""
    def source(n):
        key = words.key(SEED)
        return words.blocks(key, order(n)) if lines is None else shortened(key, order(n), lines)
    return source


def tiled(groups):
    """Return the order of a matrix with rows of so many groups: tiles of 4 rows, and in them group by group."""
    def order(n):
        tile, rest = np.divmod(n, np.uint32(4 * groups))
        return (tile * np.uint32(4) + rest % np.uint32(4)) * np.uint32(groups) + rest // np.uint32(4)
    return order


def forward(n):
    """Return positions as indices."""
    return n


def gray(n):
    """Return indices in the order of a Gray code: neighbours differ in one bit."""
    return n ^ n >> np.uint32(1)


def halves(n):
    """Return indices that count in their high 16 bits."""
    return n << np.uint32(16) | n >> np.uint32(16)


def of_uses(n):
    """Return 4 blocks of every use of a step, then the next step's."""
    index = (n >> np.uint32(2) & np.uint32(1023)) << np.uint32(words.VECTOR) | n & np.uint32(3)
    return blocks_of_keys(keys_of_steps(n >> np.uint32(12)), index)


def differences(n):
    """Return how much each byte of a block is above the last block's, modulo 256."""
    return np.diff(words.blocks(words.key(SEED), np.append(n, n[-1] + np.uint32(1))), axis=0)


def top(bits):
    """Return the shape of words of 1 or 4 bits: the top bits of every byte, packed, the first ones lowest."""
    if bits == 1:
        return lambda blocks: np.packbits(blocks >> 7, bitorder="little")
    return lambda blocks: blocks[:, ::2] >> 4 | blocks[:, 1::2] & 0xF0


def bit(lane, place):
    """Return the shape of one bit of one byte of every block, packed."""
    return lambda blocks: np.packbits(blocks[:, lane] >> place & 1, bitorder="little")


class Source(NamedTuple):
    """A stream: a line about it, the blocks of an array of positions, and the bytes to take from the blocks."""

    text: str
    blocks: object
    shape: object = lambda blocks: blocks


ORDER = of_index(forward)
STREAMS = {
    "order": Source("blocks in the order of their index", ORDER),
    "reverse": Source("from the last index down", of_index(np.invert)),
    "gray": Source("indices in the order of a Gray code", of_index(gray)),
    **{f"tiled-{groups}": Source(f"rows of {groups} blocks in tiles of 4 rows, block by block", of_index(tiled(groups)))
       for groups in (3, 13, 49)},
    "halves": Source("indices that count in their high 16 bits", of_index(halves)),
    "differences": Source("each byte less the same lane's byte in the last block", differences),
    **{f"lane-{lane}": Source(f"lane {lane} alone, in order", ORDER, lambda blocks, lane=lane: blocks[:, lane])
       for lane in (0, 7, 15)},
    "bit-low": Source("the lowest bit of lane 3 alone", ORDER, bit(3, 0)),
    "bit-top": Source("the top bit of lane 0 alone", ORDER, bit(0, 7)),
    "words-1": Source("words of 1 bit, in order", ORDER, top(1)),
    "words-4": Source("words of 4 bits, in order", ORDER, top(4)),
    "steps": Source("4 blocks of every step", lambda n: blocks_of_keys(keys_of_steps(n >> np.uint32(2)),
                                                                      n & np.uint32(3))),
    "uses": Source("4 blocks of each of the 1,024 uses, then the next step", of_uses),
    "seeds": Source("block 0 of every seed", lambda n: blocks_of_keys(keys_of_seeds(n), np.zeros_like(n))),
}
CONTROLS = {
    "pcg": Source("NumPy's PCG64, in place of our function",
                  lambda n: np.random.PCG64([SEED, int(n[0])]).random_raw(2 * len(n)).view(np.uint8)),
    "lines-6": Source("our function without lines 7 and 8", of_index(forward, 6)),
    "lines-6-gray": Source("the same, in the order of a Gray code", of_index(gray, 6)),
    "lines-4": Source("our function without lines 5 to 8", of_index(forward, 4)),
    "lines-2": Source("our function without lines 3 to 8", of_index(forward, 2)),
}
EVERY = STREAMS | CONTROLS


def stream(name):
    """Yield the bytes of a stream in parts, from 2^32 blocks."""
    source = EVERY[name]
    for start in range(0, 1 << 32, CHUNK):
        n = np.arange(start, start + CHUNK, dtype=np.uint32)
        yield np.ascontiguousarray(source.shape(source.blocks(n))).reshape(-1)


def first(name, count):
    """Return the first bytes of a stream, an array."""
    parts, got = [], 0
    for part in stream(name):
        parts.append(part)
        got += len(part)
        if got >= count:
            return np.concatenate(parts)[:count]
    raise ValueError(f"bytes is {count}; allowed: at most {got} of the stream {name}")


def longest(name, size):
    """Return how much of a stream is tested: the size wanted, or what `MOST` blocks give."""
    return min(size, MOST // CHUNK * len(next(stream(name))))


def read_report(text):
    """Return what RNG_test printed as a row: the bytes tested, and the number of anomalies of each level."""
    length = re.search(r"^length= .*\(2\^([\d.]+) bytes\)", text, re.MULTILINE)
    row = dict.fromkeys(COUNTS, 0)
    for level in re.findall(rf" ({'|'.join(sorted(LEVELS, key=len, reverse=True))})[ !]*$", text, re.MULTILINE):
        row[LEVELS[level]] += 1
    return {"bytes": round(2**float(length[1])) if length else 0, **row}


def practrand(path, name, size):
    """Test a stream and return its row. PractRand reports once, at the end."""
    size = longest(name, size)
    limits = [part for limit in ("-tlmin", "-tlmax") for part in (limit, f"{size >> 10}KB")]
    command = [path, "stdin8", "-tf", "2", *limits, "-singlethreaded"]
    with tempfile.TemporaryFile("w+") as said:
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, bufsize=0)
        with contextlib.suppress(BrokenPipeError):
            for part in stream(name):
                program.stdin.write(part)
        program.stdin.close()
        program.wait()
        said.seek(0)
        text = said.read()
    row = {"stream": name, **read_report(text)}
    for line in text.splitlines():
        if line.startswith("length") or re.search("unusual|suspicious|SUSPICIOUS|FAIL", line):
            print("   ", line, flush=True)
    if row["bytes"] != size:
        raise RuntimeError(f"PractRand stopped after {row['bytes']} of {size} bytes of {name}:\n{text[-2000:]}")
    return row


def read():
    """Return the rows of the CSV file, by stream."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        return {row["stream"]: row for row in csv.DictReader(file)}


def test(path, size, names):
    """Test streams, and write each one's row at once."""
    rows = read()
    for name in names or EVERY:
        start = time.monotonic()
        rows[name] = practrand(path, name, size)
        print(*rows[name].values(), f"{time.monotonic() - start:.0f} s", flush=True)
        experiments.save(RESULTS, FIELDS, [[rows[each][field] for field in FIELDS] for each in EVERY if each in rows])
    experiments.fill(PAGE, tables())


def tables():
    """Return the page's tables, by name: of the function's streams, and of the controls."""
    rows = read()
    found = {}
    for table, sources in (("streams", STREAMS), ("controls", CONTROLS)):
        lines = ["| stream | | MiB | unusual | mildly suspicious | suspicious or very | FAIL |",
                 "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
        shown = [rows[name] for name in sources if name in rows]
        for row in shown:
            cells = [f"{int(row['bytes']) / 2**20:,.0f}", *(row[field] for field in COUNTS)]
            lines.append(f"| `{row['stream']}` | {sources[row['stream']].text} | {' | '.join(map(str, cells))} |")
        if sources is STREAMS:
            totals = [sum(int(row[field]) for row in shown) for field in ("bytes", *COUNTS)]
            lines.append(f"| all | | {totals[0] / 2**20:,.0f} | {' | '.join(map(str, totals[1:]))} |")
        found[table] = "\n".join(lines)
    return found | {"generators": generators_table(), "units": units_table()}


# What makes the words alone: lanes, bits. Units that take random words, as data/unit-costs.csv has them.
GENERATORS = {"counted, 1 lane of 8 bits": (1, 8), "counted, 16 lanes of 8 bits": (16, 8),
              "counted, 16 lanes of 16 bits": (16, 16), "counted, 64 lanes of 8 bits": (64, 8)}
UNITS_OF_WORDS = (("bfp-converter", "{}"), ("madam-update", "{}"), ("sgd-update", "{}"),
                  ("sgd-update", '{"schedule": "shared"}'),
                  ("float-adder", '{"format": "bf16", "rounding": "stochastic"}'))
COST_FIELDS = ("what", "settings", "lut", "ff", "min", "median", "max")


def read_costs():
    """Return the rows of costs by (what, settings). Those of LFSRs and units before are of commit fabc9cc."""
    with COSTS.open(newline="") as file:
        return {(row["what"], row["settings"]): row for row in csv.DictReader(file)}


def cost():
    """Synthesise, place and route what makes the words alone; write the rows and the tables."""
    rows = read_costs()
    for label, (lanes, bits) in GENERATORS.items():
        component = CountedWords(seed=1, lanes=lanes, bits=bits)
        found = flow.synthesise(verilog.emit(component, "counted"), "counted", verilog.ports_of(component), "ecp5")
        rows[label, ""] = {"what": label, "settings": "", "lut": found["lut"], "ff": found["ff"],
                           **{name: f"{found['fmax_mhz'][name]:.1f}" for name in ("min", "median", "max")}}
        print(label, rows[label, ""]["lut"], rows[label, ""]["median"], flush=True)
    experiments.save(COSTS, COST_FIELDS, [[row[field] for field in COST_FIELDS] for row in rows.values()])
    experiments.fill(PAGE, tables())


def _figures(row):
    return f"{int(row['lut']):,} | {int(row['ff']):,} | {row['median']} ({row['min']} to {row['max']})"


def generators_table():
    """Return the table of generators: shift registers before, blocks now."""
    lines = ["| | LUT | FF | Fmax, MHz |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {what} | {_figures(row)} |" for (what, settings), row in read_costs().items() if not settings]
    return "\n".join(lines)


def units_table():
    """Return the table of units: with an LFSR for each lane, with blocks, and the difference of LUTs."""
    with (HERE / "data" / "unit-costs.csv").open(newline="") as file:
        now = {(row["unit"], row["settings"]): row for row in csv.DictReader(file)}
    before = read_costs()
    lines = ["| unit | LUT, FF, MHz with LFSRs | | | with blocks | | | LUT |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for unit, settings in UNITS_OF_WORDS:
        first, second = before[unit, settings], now[unit, settings]
        more = int(second["lut"]) / int(first["lut"]) - 1
        shown = ", ".join(f"{name}={value}" for name, value in json.loads(settings).items())
        lines.append(f"| `{unit}` {shown} | {_figures(first)} | {_figures(second)} | {more:+.0%} |")
    return "\n".join(lines)


def speed():
    """Print how many words a second the golden model makes on one core, in processor time."""
    times = []
    for _ in range(6):
        words.key.cache_clear()
        start = time.process_time()
        words.Stream(1, 16).draw(1 << 20)
        times.append(time.process_time() - start)
    print(f"{16 * (1 << 20) / statistics.median(times[1:]) / 1e6:.0f} million words a second of processor time")


def size_of(text):
    """Return a size in bytes, such as 256MB; a type for argparse."""
    found = re.fullmatch(rf"(\d+)({'|'.join(UNITS)})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a number and one of {', '.join(UNITS)}")
    return int(found[1]) * UNITS[found[2]]


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="tell the streams")
    command = commands.add_parser("stream", help="write a stream to standard output")
    command.add_argument("name", choices=EVERY, metavar="NAME")
    command.add_argument("--bytes", type=int, help="(default: without end)")
    command = commands.add_parser("test", help="test streams and write the results")
    command.add_argument("--practrand", required=True, metavar="PATH", help="the program RNG_test")
    command.add_argument("--size", type=size_of, default="1GB", help="of each stream (default: %(default)s)")
    command.add_argument("names", nargs="*", metavar="NAME", help="(default: all)")
    commands.add_parser("tables", help="write the page's tables again")
    commands.add_parser("speed", help="measure the golden model")
    commands.add_parser("cost", help="synthesise, place and route what makes the words")
    options = parser.parse_args()
    if options.command == "list":
        for name, source in EVERY.items():
            print(f"{name:14}{source.text}")
    elif options.command == "stream":
        left = 1 << 62 if options.bytes is None else options.bytes
        with contextlib.suppress(BrokenPipeError):
            for part in stream(options.name):
                sys.stdout.buffer.write(part[:left])
                left -= min(left, len(part))
                if not left:
                    break
    elif options.command == "test":
        for name in options.names:
            if name not in EVERY:
                parser.error(f"NAME is {name!r}; allowed: {', '.join(EVERY)}")
        test(options.practrand, options.size, options.names)
    elif options.command == "tables":
        experiments.fill(PAGE, tables())
    elif options.command == "cost":
        cost()
    else:
        speed()


if __name__ == "__main__":
    sys.exit(main())
