# amaranth: UnusedElaboratable=no
"""The serial line of a device round an echo: LiteX's bytes, ports, LiteX's own server, and faults of the line."""

import threading
import time
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from echo import CONFIGURATION, Echo
from lint import lint
from narrowgauge.golden.host import IDENTITY, INPUT, REGISTERS
from narrowgauge.golden.host.packets import KIND, KINDS
from narrowgauge.host import Device, HostError, LiteX, Serial, Simulated, connect
from narrowgauge.hw.host.text import axi_text, serial_text
from narrowgauge.sim.host import DeviceModel, serve

# A host that stands still for a while on a busy machine must not have its half request forgotten.
DIVISOR, TIMEOUT, PATIENCE = 4, 1 << 20, 20_000
KEPT = replace(CONFIGURATION, data=512)


@lru_cache
def text():
    return serial_text(KEPT, "echo_serial", DIVISOR, TIMEOUT, Echo())


@pytest.fixture
def model():
    made = DeviceModel("echo_serial", text(), DIVISOR)
    yield made
    made.close()


@pytest.fixture
def terminal(model):
    """Return the path of a pseudo terminal with the device behind it."""
    opened, path, going = threading.Event(), [], [True]

    def note(name):
        path.append(name)
        opened.set()

    thread = threading.Thread(target=serve, args=(model, note, lambda: going[0]))
    thread.start()
    assert opened.wait(60)
    yield path[0]
    going[0] = False
    thread.join()


def require_echo(device, seed=1, packets=6):
    """Send elements, and demand that each comes back once, in order."""
    rng = np.random.default_rng(seed)
    device.reset()
    sent = [rng.integers(0, 1 << 31, rng.integers(1, 200), dtype=np.uint32) for _ in range(packets)]
    for each in sent:
        each[-1] |= 1 << 31  # the end of a message
    lengths = iter([len(each) for each in sent])
    device._lengths = lengths
    device.offer([np.array([KINDS.index("elements") << KIND | len(each), *each], np.uint32) for each in sent])
    for each in sent:
        assert np.array_equal(device.next()[:, 0], each)


@pytest.mark.parametrize("kind", ["axi", "serial"])
def test_lint_says_nothing_of_a_device(kind, tmp_path):
    made = axi_text(KEPT, "echo_axi", Echo()) if kind == "axi" else text()
    (tmp_path / "device.v").write_text(made)
    assert "Warning" not in lint(tmp_path, "device.v")


def test_requests_are_those_of_uartbone(model):
    def read(address, count, command=2):
        model.write(bytes([command, count]) + (address // 4).to_bytes(4, "big"))
        return [model.read(PATIENCE, 4) for _ in range(count)]

    def write(address, words, command=1):
        model.write(bytes([command, len(words)]) + (address // 4).to_bytes(4, "big")
                    + b"".join(word.to_bytes(4, "big") for word in words))

    assert read(0, 2) == [IDENTITY.to_bytes(4, "big"), (0x10000).to_bytes(4, "big")]
    assert read(0, 3, 4) == [IDENTITY.to_bytes(4, "big")] * 3
    enable = REGISTERS["irq_enable"].address
    write(enable, [5])
    assert read(enable, 1) == [b"\0\0\0\5"]
    write(enable, [1, 2, 9], 3)
    assert read(enable, 1) == [b"\0\0\0\x09"]
    model.write(bytes([0, 9, 255]))  # no commands
    assert read(0, 1) == [IDENTITY.to_bytes(4, "big")]
    assert read(1 << 20, 1) == [bytes(4)]  # beyond the aperture
    write(INPUT + (1 << 20), [5])
    assert read(REGISTERS["received"].address, 1) == [bytes(4)]
    model.write(bytes([1, 3, 0]))  # half a request, which is forgotten
    model.read(TIMEOUT + 1000)
    assert read(0, 1) == [IDENTITY.to_bytes(4, "big")]


def test_every_word_goes_there_and_back_once(model):
    device = Device(Simulated(model, PATIENCE), KEPT)
    for seed in range(3):
        require_echo(device, seed)
    assert device.counters()["training_cycles"] == 0  # the echo counts nothing there
    assert list(device.counters().values())[5] == 5 | 5 << 4


def test_rows_and_bytes_are_looked_up(model):
    """Rows that the data memory has come as their elements, and so do rows of bytes, whatever their length."""
    rng = np.random.default_rng(7)
    for columns in (1, 4, 7, 16):
        table = rng.choice(1 << 15, 200, replace=False).astype(np.uint32)
        table[0] |= 1 << 15  # with a single column: the last element of a message, as the echo has it
        examples = table[rng.integers(1, 200, (9, columns))]
        device = Device(Simulated(model, PATIENCE), KEPT)
        device.keep(np.concatenate([examples, examples[:, ::-1]]))
        chosen = rng.integers(0, 9, 5)
        other = np.sort(examples, axis=1)  # rows that were not stored, for the most part
        for codes in (examples[chosen], other):
            words = device.packets.tensor(codes)
            expected = device.transfers.elements(codes)[:, 0]
            last = np.array([1 << 31], np.uint32)
            device._lengths = iter([len(expected) + 1])
            device.offer([words, np.array([KINDS.index("elements") << KIND | 1, *last], np.uint32)])
            # Padding of rows is what the table has at 0.
            found = device.next()[:, 0]
            assert len(found) == len(expected) + 1 and found[-1] == last[0]
            per_row = device.transfers.count(1, columns)
            for row, codes_of_row in zip(found[:-1].reshape(-1, per_row), codes):
                pairs = np.stack([row & 0xFFFF, row >> 16], axis=1).reshape(-1)[:columns]
                assert np.array_equal(pairs, codes_of_row)
        kinds = {KINDS[int(device.packets.tensor(codes)[0]) >> KIND] for codes in (examples, other)}
        assert kinds <= {"rows", "bytes"} and "rows" in kinds


@pytest.mark.parametrize("garbage", [bytes(range(256)), b"\1\xff\0\0\2\0" + bytes([7] * 100), b"\1\1\0\0\0\5\0\0\0\3"])
def test_garbage_before_a_host_comes_does_no_harm(model, garbage):
    model.write(garbage)
    require_echo(Device(Simulated(model, PATIENCE), KEPT))


CHANGES = {
    "a byte is lost": lambda data, at: data[:at] + data[at + 1:],
    "a bit is changed": lambda data, at: data[:at] + bytes([data[at] ^ 16]) + data[at + 1:],
    "a byte comes between": lambda data, at: data[:at] + b"\x55" + data[at:],
    "the cable is pulled": lambda data, at: data[:at],
}


class Faulty(Simulated):
    """Changes bytes to the device, after so many of them."""

    left, change, gone = None, None, False

    def _send(self, data):
        if self.left is not None:
            if 0 <= self.left < len(data):
                data = self.change(data, self.left)
            self.left -= len(data)
        super()._send(data)


@pytest.mark.parametrize("change", CHANGES)
def test_a_fault_of_the_line_is_one_error_and_a_retry_mends_it(model, change):
    for left in (300, 1001, 1502):
        line = Faulty(model, PATIENCE)
        line.change = CHANGES[change]
        device = Device(line, KEPT)
        line.left = left
        with pytest.raises(HostError, match=r"^simulation: [^\n]*$"):
            require_echo(device)
    require_echo(Device(Simulated(model, PATIENCE), KEPT))


def test_answers_that_are_lost_are_one_error(model):
    class Deaf(Simulated):
        heard = 2000

        def _receive(self, count):
            self.heard -= count
            found = super()._receive(count)
            return found if self.heard > 0 else found[:-1]

    device = Device(Deaf(model, PATIENCE), KEPT)
    with pytest.raises(HostError, match="^simulation: [0-9]+ of [0-9]+ bytes came in answer to a read of "):
        require_echo(device)
    require_echo(Device(Simulated(model, PATIENCE), KEPT))


def test_another_configuration_is_refused(model):
    with pytest.raises(HostError, match="^simulation: configuration is 0x[0-9a-f]{8}, and not 0x"):
        Device(Simulated(model, PATIENCE), CONFIGURATION)


def test_a_device_that_does_not_answer_is_one_error(model):
    class Cut(Simulated):
        def _send(self, data):
            pass

    with pytest.raises(HostError, match="^simulation: 0 of 20 bytes came in answer to a read of 0x0;"):
        Device(Cut(model, 1000), KEPT)


def test_nothing_that_moves_is_one_error(model):
    device = Device(Simulated(model, PATIENCE), KEPT, patience=0.2)
    with pytest.raises(HostError, match="^simulation: nothing has moved for 0.2 s, at instruction 0$"):
        device.next()


def test_an_error_of_the_device_has_a_text(model):
    device = Device(Simulated(model, PATIENCE), KEPT)
    device.offer([np.array([0xF0000001], np.uint32)])
    with pytest.raises(HostError, match="^simulation: the device met an error: a packet of a kind that there is none"):
        device.next()
    require_echo(device)


def test_a_serial_port_has_the_device(terminal):
    pytest.importorskip("serial")
    with Device(connect(terminal, 1_000_000, timeout=60), KEPT) as device:
        assert isinstance(device.transport, Serial)
        require_echo(device)


def test_a_port_that_is_gone_is_one_error(tmp_path):
    pytest.importorskip("serial")
    with pytest.raises(HostError, match="nothing"):
        Serial(str(tmp_path / "nothing"), 115200)
    with pytest.raises(ValueError, match="^port is 'litex:'; allowed: litex:HOST:PORT, or a serial port$"):
        connect("litex:", 1)


@pytest.fixture
def litex(terminal):
    """Returns the port of LiteX's own server, which is on the line."""
    pytest.importorskip("litex")
    import socket

    from litex.tools.litex_server import RemoteServer
    from litex.tools.remote.comm_uart import CommUART
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    server = RemoteServer(CommUART(terminal, 1_000_000), "localhost", port)
    server.open()
    server.start(4)
    time.sleep(0.1)
    return port


def test_litex_reads_the_identity(litex):
    """LiteX's own client does."""
    from litex import RemoteClient
    client = RemoteClient("localhost", litex)
    client.open()
    assert client.read(0) == IDENTITY
    client.write(REGISTERS["irq_enable"].address, 6)
    assert client.read(REGISTERS["irq_enable"].address, 2) == [6, 0]
    client.close()


@pytest.mark.sweep
def test_a_device_is_driven_through_litex(litex):
    device = Device(connect(f"litex:localhost:{litex}", 1, timeout=60), KEPT)
    assert isinstance(device.transport, LiteX)
    require_echo(device, packets=2)
    device.close()
