"""TLS handshakes, full and resumed: the edge, bare Pingora and nginx."""

import os
import subprocess

import machine
import measure
import peers
import rounds
import signon
from opened import checked, measured, opened
from stage import Failed

TITLE = "TLS handshakes"
TEXT = (
    "A connection, a TLS 1.3 handshake with an ECDSA P-256 certificate, one request, the end of the connection, from eight "
    "clients. Resumed: each connection offers the session of an earlier one. The request is in the cost; "
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
        command = [peers.helper("handshakes"), running.port, stage.folder / "cert.pem", seconds, mode]
        command += [f"{signon.TOKEN_COOKIE}={token}", signon.USER_AGENT]
        pin = lambda: os.sched_setaffinity(0, stage.load_cores)
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, preexec_fn=pin)
        return measure.figures_in(done.stdout + done.stderr)

    client(1)
    before = machine.cpu_seconds(running.process.pid)
    figures = client(rounds.seconds())
    cpu = machine.cpu_seconds(running.process.pid) - before
    if figures["failed"] or not figures["done"] or not cpu:
        raise Failed(f"{figures['failed']:.0f} of {figures['done']:.0f} connections got no answer")
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
