"""TLS handshakes, full and resumed: the edge, bare Pingora and nginx."""

import os
import subprocess
import sys

import machine
import peers
import rounds
import signon
from opened import checked, measured, opened
from stage import HERE, Failed

TITLE = "TLS handshakes"
TEXT = (
    "A connection, a TLS 1.3 handshake with an ECDSA P-256 certificate, one request, the end of the connection, one after "
    "the other from one client. Resumed: each connection offers the session of the one before. The request is in the cost; "
    "the scenario of the hot path says how much that is."
)
COLUMNS = [
    ["cpu_us", "CPU µs/connection", 0],
    ["per_cpu_s", "connections per CPU second", 0],
    ["resumed", "resumed", 2],
    ["connections", "connections", 0],
]


def connect(stage, running, token, mode):
    def client(seconds):
        command = [sys.executable, HERE / "handshakes.py", running.port, stage.folder / "cert.pem", seconds, mode]
        command.append(f"{signon.TOKEN_COOKIE}={token}")
        pin = lambda: os.sched_setaffinity(0, stage.load_cores)
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, preexec_fn=pin)
        if not done.stdout.startswith("figures"):
            raise Failed(f"the client: {done.stderr[-400:]}")
        return {name: int(value) for name, value in (part.split("=") for part in done.stdout.split()[1:])}

    client(1)
    before = machine.cpu_seconds(running.process.pid)
    figures = client(rounds.seconds())
    cpu = machine.cpu_seconds(running.process.pid) - before
    if figures["failed"] or not figures["done"] or not cpu:
        raise Failed(f"{figures['failed']} of {figures['done']} connections got no answer")
    share = figures["resumed"] / figures["done"]
    if mode == "full" and share or mode == "resumed" and share < 0.9:
        raise Failed(f"{share:.0%} of the handshakes were resumed")
    each = cpu / figures["done"]
    return {"cpu_us": each * 1e6, "per_cpu_s": 1 / each, "resumed": share, "connections": figures["done"]}


def run():
    stage, cores, token = opened()
    measured_peers = (peers.EDGE, peers.BARE, peers.NGINX_ALONE)
    subjects = [(f"{peer.name}, {mode}", (peer, peer.start)) for mode in ("full", "resumed") for peer in measured_peers]
    rows, ready = checked(stage, cores, token, subjects)
    once = lambda name, running: connect(stage, running, token, name.split(", ")[-1])
    return measured(stage, cores, rows, ready, once)
