"""cocotb tests of a device with AXI buses round an echo: see tests/host/test_axi.py."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Event, RisingEdge, Timer
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)
from narrowgauge.golden.host import ERRORS, FIELDS, INPUT, OUTPUT, REGISTERS, WINDOW
from narrowgauge.golden.host.packets import KIND, KINDS

CYCLES = int(os.environ.get("NARROWGAUGE_CYCLES", "20000"))
HASH = int(os.environ["NARROWGAUGE_HASH"])
CONSTANT = {"configuration": HASH, "room": int(os.environ["NARROWGAUGE_DEPTH"]), "capability": None, "data": None,
            "count": None}
EMPTY = {"stopped": 0}


class Bench:
    """Masters and slaves round the device, after a reset."""

    def __init__(self, dut):
        self.dut, self.random = dut, random.Random(cocotb.RANDOM_SEED)
        Clock(dut.aclk, 10, "ns").start()
        dut.aresetn.value = 0
        self.lite = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.aclk, dut.aresetn,
                                  reset_active_level=False)
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.aclk, dut.aresetn,
                                      reset_active_level=False)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.aclk, dut.aresetn,
                                  reset_active_level=False)

    async def reset(self, cycles=3):
        self.dut.aresetn.value = 0
        for _ in range(cycles):
            await RisingEdge(self.dut.aclk)
        self.dut.aresetn.value = 1
        await RisingEdge(self.dut.aclk)

    def stall(self, chance=0.5):
        """Hold back every channel at random."""
        def pauses():
            while True:
                yield self.random.random() < chance

        writes, reads = self.lite.write_if, self.lite.read_if
        for channel in (writes.aw_channel, writes.w_channel, writes.b_channel, reads.ar_channel, reads.r_channel,
                        self.source, self.sink):
            channel.set_pause_generator(pauses())

    async def read(self, address, response=AxiResp.OKAY):
        found = await self.lite.read(address, 4)
        assert found.resp == response, (hex(address), found.resp)
        return int.from_bytes(found.data, "little")

    async def write(self, address, value, response=AxiResp.OKAY):
        found = await self.lite.write(address, value.to_bytes(4, "little"))
        assert found.resp == response, (hex(address), found.resp)

    async def register(self, name, value=None):
        address = REGISTERS[name].address
        return await self.read(address) if value is None else await self.write(address, value)


def packet(kind, count, words):
    return [KINDS.index(kind) << KIND | count, *words]


def frame(words):
    return AxiStreamFrame(b"".join(word.to_bytes(4, "little") for word in words))


def words_of(found):
    data = bytes(found.tdata)
    return [int.from_bytes(data[at:at + 4], "little") for at in range(0, len(data), 4)]


async def begun(dut):
    bench = Bench(dut)
    await bench.reset()
    return bench


@cocotb.test()
async def every_register_and_hole(dut):
    bench = await begun(dut)
    known = {register.address: register for register in REGISTERS.values()}
    for address in range(0, INPUT, 4):
        register = known.get(address)
        if register is None:
            await bench.read(address, AxiResp.SLVERR)
            await bench.write(address, 0xFFFFFFFF, AxiResp.SLVERR)
            continue
        found = await bench.read(address)
        wanted = CONSTANT.get(register.name, register.value or 0)
        assert wanted is None or found == wanted, (register.name, hex(found))
        if register.access == "r":
            await bench.write(address, 0xFFFFFFFF, AxiResp.SLVERR)
            again = await bench.read(address)
            assert wanted is None or again == wanted, register.name
    for address in range(OUTPUT, OUTPUT + WINDOW, 4):  # the stream has the output: the window is empty
        await bench.read(address, AxiResp.SLVERR)
        await bench.write(address, 1, AxiResp.SLVERR)
    assert ERRORS[await bench.register("error")] == "a word from the output while it was empty"
    await bench.register("control", 1)
    for _ in range(8):
        await RisingEdge(dut.aclk)
    assert await bench.register("error") == 0


@cocotb.test()
async def bytes_that_a_strobe_leaves_out_stay(dut):
    bench = await begun(dut)
    enable = REGISTERS["irq_enable"].address
    for value in (0b0101, 0b1111, 0):
        await bench.register("irq_enable", value)
        assert await bench.register("irq_enable") == value
        for lane in range(1, 4):  # the strobe of another byte
            assert (await bench.lite.write(enable + lane, b"\xff")).resp == AxiResp.OKAY
            assert await bench.register("irq_enable") == value
        assert (await bench.lite.write(enable, bytes([value ^ 0b1010]))).resp == AxiResp.OKAY
        assert await bench.register("irq_enable") == value ^ 0b1010
    before = await bench.register("received")
    for length in (1, 2, 3):  # half a word is none
        assert (await bench.lite.write(INPUT, b"\x11" * length)).resp == AxiResp.SLVERR
    assert await bench.register("received") == before


@cocotb.test()
async def addresses_and_words_come_in_either_order(dut):
    bench = await begun(dut)
    for number in range(40):
        early, late = bench.lite.write_if.aw_channel, bench.lite.write_if.w_channel
        if number % 2:
            early, late = late, early
        late.pause = True
        done = Event()
        value = bench.random.randrange(16)

        async def write(value=value, done=done):
            await bench.register("counter", value)
            done.set()

        cocotb.start_soon(write())
        await Timer(10 * bench.random.randrange(3, 12), "ns")
        assert not done.is_set()
        late.pause = False
        await done.wait()
        assert await bench.register("counter") == value


@cocotb.test()
async def events_raise_irq_until_they_are_cleared(dut):
    bench = await begun(dut)
    report = 1 << FIELDS["irq_status"]["output"].low
    await bench.register("irq_enable", report)
    assert dut.irq.value == 0
    await bench.source.send(frame(packet("elements", 1, [0x80000000])))
    await bench.sink.recv()
    for _ in range(4):
        await RisingEdge(dut.aclk)
    assert dut.irq.value == 1
    assert await bench.register("irq_status") == report
    await bench.register("irq_status", report ^ 15)  # the others
    assert dut.irq.value == 1
    await bench.register("irq_status", report)
    for _ in range(2):
        await RisingEdge(dut.aclk)
    assert dut.irq.value == 0 and await bench.register("irq_status") == 0


@cocotb.test()
async def errors_have_codes(dut):
    bench = await begun(dut)

    async def found(text):
        for _ in range(30):
            await RisingEdge(dut.aclk)
        assert ERRORS[await bench.register("error")] == text
        assert await bench.register("irq_status") >> FIELDS["irq_status"]["error"].low & 1
        await bench.register("control", 1)
        for _ in range(8):
            await RisingEdge(dut.aclk)
        assert await bench.register("error") == await bench.register("irq_status") == 0

    await bench.source.send(frame([0xF0000001, 5, 6]))
    await found("a packet of a kind that there is none of")
    await bench.source.send(frame([KINDS.index("rows") << KIND | 1, 1, 0]))
    await found("rows or bytes of a data memory that this device does not have")
    for words in (packet("elements", 3, [1, 2]), packet("elements", 1, [1, 2])):
        await bench.source.send(frame(words))
        await bench.source.send(frame(packet("elements", 2, [0x80000001, 0x80000002])))
        await found("a packet on the stream that ended early, or did not end")
    bench.sink.pause = True
    depth = CONSTANT["room"]
    await bench.write(INPUT, packet("elements", 2000, [])[0])
    for number in range(2000):  # until nothing fits any more
        if not await bench.register("room"):
            break
        await bench.write(INPUT + 4 * (number % 256), 0)
    assert number > depth
    await bench.write(INPUT, 0, AxiResp.SLVERR)
    bench.sink.pause = False
    await found("a word for the input while it was full")
    await bench.source.send(frame(packet("elements", 1, [0x80000007])))  # and all is well
    while words_of(await bench.sink.recv())[-1] != 0x80000007:
        pass


async def traffic(bench, cycles, answers):
    """Packets by stream and window, with all channels held back now and then, and registers read meanwhile.

    `answers` gets the words of messages without their first ones.
    """
    rng, sent, stop = bench.random, {0: [], 1: []}, Event()

    def words(origin):
        """Return the transfers of a packet: origin, packet's number, place, and that the message ends."""
        count, number = rng.randrange(1, 30), len(sent[origin])
        made = [origin << 30 | (number & 0x3FFFF) << 6 | place | (place == count - 1) << 31 for place in range(count)]
        sent[origin].append(made)
        return packet("elements", count, made)

    async def by_stream():
        while not stop.is_set():
            await bench.source.send(frame(words(0)))
            await bench.source.wait()

    async def by_window():
        while not stop.is_set():
            for word in words(1):
                while not await bench.register("room"):
                    pass
                await bench.write(INPUT + 4 * rng.randrange(256), word)
            for _ in range(rng.randrange(60)):
                await RisingEdge(bench.dut.aclk)

    async def by_registers():
        while not stop.is_set():
            value = rng.randrange(16)
            await bench.register("counter", value)
            assert await bench.register("counter") == value
            assert await bench.register("identity") == REGISTERS["identity"].value

    async def taken():
        while True:
            answers.append(words_of(await bench.sink.recv()))

    tasks = [cocotb.start_soon(each()) for each in (by_stream, by_window, by_registers)]
    reader = cocotb.start_soon(taken())
    for _ in range(cycles):
        await RisingEdge(bench.dut.aclk)
    stop.set()
    for task in tasks:
        await task
    for _ in range(3000):
        await RisingEdge(bench.dut.aclk)
    reader.cancel()
    return sent


@cocotb.test()
async def nothing_is_lost_or_repeated(dut):
    bench = await begun(dut)
    bench.stall()
    answers = []
    sent = await traffic(bench, CYCLES, answers)
    assert all(each[0] == 0 for each in answers)  # a message's first word: its kind
    found = {0: [], 1: []}
    for each in answers:
        found[each[1] >> 30 & 1].append(each[1:])
    for origin in (0, 1):  # whole packets, each once, in order: a message is a packet
        assert found[origin] == sent[origin]
        assert len(sent[origin]) > CYCLES // 1000
    assert await bench.register("error") == 0
    count = sum(len(each) + 1 for each in sent[1])
    assert await bench.register("received") == count


@cocotb.test()
async def a_reset_in_mid_burst_leaves_nothing_behind(dut):
    for number in range(4):
        bench = Bench(dut) if number == 0 else bench  # noqa: F821
        await bench.reset()
        await bench.source.send(frame(packet("elements", 40, list(range(20)) + [0x80000000] * 20)))
        for word in packet("elements", 9, [1, 2, 3]):
            await bench.write(INPUT, word)
        for _ in range(bench.random.randrange(20)):
            await RisingEdge(dut.aclk)
        bench.source.clear()
        await bench.reset()
        bench.sink.clear()
        made = [5, 6, 7, 0x80000008]
        await bench.source.send(frame(packet("elements", 4, made)))
        assert words_of(await bench.sink.recv())[1:] == made
        assert await bench.register("received") == 0
        for word in packet("elements", 4, made):
            await bench.write(INPUT, word)
        assert words_of(await bench.sink.recv())[1:] == made
