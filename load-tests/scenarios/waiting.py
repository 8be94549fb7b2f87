"""What requests that wait for a late application do to others: the p99 beside 2,000 of them, and what each of them holds."""

import os
import signal
import subprocess
import time

import beside
import machine
import measure
import peers
import rounds
from stage import Failed

TITLE = "A late application beside the traffic"
TEXT = (
    "The hot path at half the rate that the edge can do, alone, beside 2,000 connections at another edge, each of which asks "
    "an application that answers after half a second to one and a half, at random, and asks again at once, and beside the "
    "same at this one. A route leads there; these requests have a cookie too, and their session is checked. Memory is what the "
    "edge holds (proportional set size) with them less what it held before, divided by those that the application has not "
    "answered: each is a TLS connection, one to the application, and the request itself. The core's being busy has them in it. "
    "A single failed request spoils a measurement, of either kind. Who asks and who is late share wrk's core, so that the last "
    "row against the first says too much of the edge; against the second it says too little, as the other edge works on that "
    "core too. It does not show an application that never answers: the route's `read_timeout` ends that."
)
COLUMNS = [
    ["p99_ms", "p99 ms", 2],
    ["p50_ms", "p50 ms", 2],
    ["requests_s", "requests/s", 0],
    ["busy", "core busy", 2],
    ["waiting", "waiting", 0],
    ["late_s", "late answers/s", 0],
    ["each_kib", "KiB/waiting request", 1],
]
SERVICE = "pool: iqueue}\n"
# Seconds until all of them wait, for each answer, and until all is told.
PATIENCE = 30


def count():
    """`CONNECTIONS=`; the edge takes at most 20,000."""
    return rounds.setting("CONNECTIONS", 2_000)


def with_route(stage, text):
    text = text.replace(SERVICE, "pool: iqueue, routes: [{path: /late, pool: late}]}\n", 1)
    return f'{text}  late: {{servers: ["127.0.0.1:{stage.application_port}"], timeouts: {{connect: {PATIENCE}s, idle: 300s}}}}\n'


def start(stage, cores):
    # All of them shake hands at once, with an edge that may have little of a core.
    return peers.start_edge(stage, cores, more=with_route, patience=f", tls_handshake: {PATIENCE}s")


def begin(stage, port, token):
    lasting = rounds.seconds() + 3 * PATIENCE
    command = measure.wrk_command(port, token, lasting, count(), path="/late", patience=PATIENCE)
    pin = lambda: os.sched_setaffinity(0, stage.load_cores)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin)


def until_waiting(stage, client):
    """Until nearly all of them wait."""
    deadline = time.monotonic() + PATIENCE
    while (waiting := measure.counts(stage)["waiting"]) < 0.9 * count():
        if time.monotonic() > deadline or client.poll() is not None:
            raise Failed(f"{waiting:.0f} of {count()} requests wait")
        time.sleep(0.1)


def measurement(stage, running, target, traffic, token):
    measure.wait(stage, running.port, token)
    traffic(stage, running.port, token, 1)
    before = machine.memory_bytes(running.process.pid)
    if target is None:
        return measure.measured(stage, running, token, rounds.seconds(), traffic) | {"waiting": 0}
    client = begin(stage, target.port, token)
    try:
        until_waiting(stage, client)
        before_late, begun = measure.counts(stage)["late"], time.monotonic()
        figures = measure.measured(stage, running, token, rounds.seconds(), traffic)
        counts, lasted = measure.counts(stage), time.monotonic() - begun
        within = machine.memory_bytes(running.process.pid)
        client.send_signal(signal.SIGINT)
        crowd = measure.figures_in(client.communicate(timeout=PATIENCE)[0])
    finally:
        client.kill()
    if crowd["failed"] or counts["waiting"] < 0.9 * count():
        raise Failed(f"{crowd['failed']:.0f} late requests failed, {counts['waiting']:.0f} waited")
    figures |= {"waiting": counts["waiting"], "late_s": (counts["late"] - before_late) / lasted}
    return figures | ({"each_kib": (within - before) / counts["waiting"] / 1024} if target is running else {})


def run():
    crowd = f"{count():,} waiting requests"
    return beside.run(crowd, start, measurement, lambda stage: stage.start_application())
