"""The cocotb side of every bench: drives one input stream, watches one output stream.

Runs inside the simulator. The job (payloads, expectations, gap probabilities) comes from the
file named in ``NARROWGAUGE_JOB``; the verdict goes into the file beside it. All signals are
sampled just before a rising clock edge and driven just after it.
"""

import json
import os
import random
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

__all__ = ["bench"]

PATIENCE = 5000  # cycles without any transfer before the bench gives up
KEPT = 5  # mismatches described in full


@cocotb.test()
async def bench(dut):
    """Drive the job's payloads with random gaps on both sides; compare every output and status."""
    job_file = Path(os.environ["NARROWGAUGE_JOB"])
    job = json.loads(job_file.read_text())
    inputs, outputs = ([int(payload, 16) for payload in job[name]] for name in ("inputs", "outputs"))
    idle, busy = job["idle"], job["busy"]
    dice = random.Random(job["seed"])

    clk, i_valid, i_payload, i_ready = dut.clk, dut.i_valid, dut.i_payload, dut.i_ready
    o_valid, o_payload, o_ready = dut.o_valid, dut.o_payload, dut.o_ready
    i_valid.value, i_payload.value, o_ready.value, dut.rst.value = 0, 0, 0, 1
    if hasattr(dut, "status_clear"):
        dut.status_clear.value = 0
    Clock(clk, 10, "ns").start()
    for _ in range(3):
        await RisingEdge(clk)
    dut.rst.value = 0
    await RisingEdge(clk)

    sent = seen = cycles = quiet = mismatches = 0
    failures, broken, held = [], [], None
    accepted_at, delays, spans = [], [], {}
    valid, ready = False, False
    tail = 50  # cycles watched after the last expected output, for outputs that should not come
    while quiet < PATIENCE and (sent < len(inputs) or seen < len(outputs) or tail):
        await RisingEdge(clk)
        cycles += 1
        quiet += 1
        if sent == len(inputs) and seen >= len(outputs):
            tail -= 1
        # What the edge that is just happening transfers.
        if valid and i_ready.value == 1:
            sent += 1
            quiet = 0
            valid = False
            accepted_at.append(cycles)
        if o_valid.value == 1:
            got = int(o_payload.value)
            if held is not None and got != held:
                broken.append(f"cycle {cycles}: the waiting output changed from {held:#x} to {got:#x}")
            held = None if ready else got
            if ready:
                quiet = 0
                if seen >= len(outputs):
                    broken.append(f"cycle {cycles}: an output beyond the last expected one: {got:#x}")
                else:
                    if got != outputs[seen]:
                        mismatches += 1
                        if len(failures) < KEPT:
                            failures.append((seen, f"{got:x}"))
                    if job["origin"][seen] < len(accepted_at):
                        delays.append(cycles - accepted_at[job["origin"][seen]])
                        spans[job["origin"][seen]] = (accepted_at[job["origin"][seen]], cycles)
                    else:
                        broken.append(f"cycle {cycles}: output {seen} came before its input")
                seen += 1
        elif held is not None:
            broken.append(f"cycle {cycles}: a waiting output was withdrawn")
            held = None
        # What the next edge shall find. A valid input stays until it is taken.
        if not valid and sent < len(inputs) and dice.random() >= idle:
            i_payload.value = inputs[sent]
            valid = True
        i_valid.value = valid
        ready = dice.random() >= busy
        o_ready.value = ready
        if len(broken) >= KEPT or mismatches >= 1000:
            break

    if not broken and (sent < len(inputs) or seen < len(outputs)) and mismatches < 1000:
        broken.append(f"stuck after {sent} of {len(inputs)} inputs and {seen} of {len(outputs)} outputs")
    status = {name: int(getattr(dut, name).value) for name in job["status"]}
    job_file.with_suffix(".json").write_text(json.dumps({
        "mismatches": mismatches, "cycles": cycles, "sent": sent, "seen": seen, "failures": failures,
        "broken": broken, "status": status, "latency": min(delays, default=None),
        "spans": [*spans.items()],
    }))
