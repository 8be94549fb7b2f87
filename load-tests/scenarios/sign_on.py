"""The whole way of a browser that signs on, and of one that is signed on and comes to a service: what it costs and takes."""

import os
import time

import machine
import measure
import peers
import rounds
from opened import checked, measured, opened
from stage import HOST, SENTRY_HOST, Failed
from visitors import Visitors

TITLE = "Signing on"
TEXT = (
    "Browsers over kept TLS connections, each of which sets out for a page of a service, and for another when it has it. "
    "Signing on: without any cookie, to the sign-on host, its form, the password, back with a ticket, to the page. Hand-off: "
    "the same without the form, because the sign-on host knows the browser. A password takes Argon2id with 19 MiB, which is "
    "dear on purpose and nearly all that signing on costs; it is looked at by a thread that takes what time is left over, so "
    "whoever else is on the machine delays it. Sessions, tickets and counters are in memcached. Every way must end at the "
    "page, with one form on the way or with none. The browsers are Python, on a core with memcached and the application: "
    "where the proxy's core is not busy, its CPU second says what it could do, and eight browsers wait for one another. It "
    "does not show TLS handshakes, nor HTTP/2, nor many users: all browsers sign on as one."
)
COLUMNS = [
    ["cpu_ms", "CPU ms/way", 2],
    ["per_cpu_s", "ways per CPU second", 0],
    ["ways_s", "ways/s", 0],
    ["p50_ms", "p50 ms", 1],
    ["p99_ms", "p99 ms", 1],
    ["busy", "core busy", 2],
    ["requests", "requests/way", 0],
]
CLIENT = ("python3", "--version")
FEW, MANY = 1, 8
# Whose cookies a browser has forgotten when it sets out, and how many forms it meets.
KINDS = {"signing on": ((HOST, SENTRY_HOST), 1), "hand-off": ((HOST,), 0)}


def visit(stage, running, token, kind, count):
    measure.wait(stage, running.port, token)
    forgotten, forms = KINDS[kind]
    visitors = Visitors(stage, running.port, count)
    try:
        # Once with a form, so that the sign-on host knows them.
        visitors.visit(0, (HOST, SENTRY_HOST))
        visitors.visit(1, forgotten)
        cpu, begun = machine.cpu_seconds(running.process.pid), time.monotonic()
        ways = visitors.visit(rounds.seconds(), forgotten)
        cpu, lasted = machine.cpu_seconds(running.process.pid) - cpu, time.monotonic() - begun
    finally:
        visitors.close()
    if any(met != forms for _, _, met in ways) or not cpu:
        raise Failed(f"not each of {len(ways)} ways had {forms} forms")
    took, each = sorted(took for took, _, _ in ways), cpu / len(ways)
    return {
        "cpu_ms": each * 1000,
        "per_cpu_s": 1 / each,
        "ways_s": len(ways) / lasted,
        "p50_ms": took[len(took) // 2],
        "p99_ms": took[len(took) * 99 // 100],
        "busy": cpu / lasted,
        "requests": sum(asked for _, asked, _ in ways) / len(ways),
    }


def run():
    stage, cores, token = opened()
    os.sched_setaffinity(0, stage.load_cores)
    ways = {f"{kind}, {count} browser{'s' if count > 1 else ''}": (kind, count) for kind in KINDS for count in (MANY, FEW)}
    rows, ready = checked(stage, cores, token, [(name, (peers.EDGE, peers.start_edge)) for name in ways])
    return measured(stage, cores, rows, ready, lambda name, running: visit(stage, running, token, *ways[name]))
