"""What attacks over HTTP/2 do to others: p99 beside them, the memory that they cost, and when the edge ends them."""

import os
import subprocess
import sys
import time

import beside
import machine
import measure
import peers
import rounds
from stage import HERE, HOST, Failed

TITLE = "Floods over HTTP/2 beside the traffic"
TEXT = (
    "The hot path at half the rate that the edge can do, alone, beside attacks on another edge, and beside the same on this "
    "one: streams that are reset as they are opened, heads without end in large pieces and in empty ones, PING, SETTINGS, "
    "empty DATA. Two connections each at a time, which read what they are sent; one that the edge has closed is opened again, "
    "20 in a second of all. The longest is from an attack's first byte to the end of its connection; one that is still open "
    "when the measurement ends counts as long as it has lasted. A single failed request of the others spoils a measurement. "
    "The attackers share wrk's core, so that the last row against the first says too much of the edge; against the second it "
    "says too little, as the other edge works on that core too. It does not show what floods do where bandwidth or cores are "
    "short, nor what more of them would: `connections_per_address` is what bounds them."
)
COLUMNS = [
    ["p99_ms", "p99 ms", 2],
    ["p50_ms", "p50 ms", 2],
    ["cpu_us", "CPU µs/request", 1],
    ["requests_s", "requests/s", 0],
    ["attacks_s", "attacks ended/s", 1],
    ["longest_ms", "the longest, ms", 0],
    ["grown_mib", "memory gained at most, MiB", 1],
]
CROWD = "floods"


def begin(stage, port):
    command = [sys.executable, HERE / "attackers.py", str(port), stage.folder / "cert.pem", HOST]

    def before():
        os.sched_setaffinity(0, stage.load_cores)
        os.nice(beside.KIND)

    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before
    )


def measurement(stage, running, target, traffic, token):
    measure.wait(stage, running.port, token)
    traffic(stage, running.port, token, 1)
    grown = machine.growth(running.process.pid)
    if target is None:
        figures = measure.measured(stage, running, token, rounds.seconds(), traffic)
        return figures | {"grown_mib": grown()}
    attackers, begun = begin(stage, target.port), time.monotonic()
    try:
        figures = measure.measured(stage, running, token, rounds.seconds(), traffic)
        lasted = time.monotonic() - begun
        said, errors = attackers.communicate(timeout=30)
    finally:
        attackers.kill()
    if attackers.returncode:
        raise Failed(f"the attackers failed: {errors[-400:]}")
    rounds.say(f"  {errors.strip()}".replace("\n", "; "))
    attacks = measure.figures_in(said)
    if not attacks["fewest"]:
        raise Failed(f"not every attack was ended: {errors}")
    figures |= {"attacks_s": attacks["attacks"] / lasted, "longest_ms": attacks["longest_ms"]}
    return figures | {"grown_mib": grown()}


def run():
    return beside.run(CROWD, peers.start_edge, measurement)
