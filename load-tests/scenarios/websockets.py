"""A crowd of WebSockets that talk: the edge, bare Pingora, nginx and HAProxy, what they hold and what a message costs them."""

import os
import ssl
import time

import machine
import measure
import peers
import rounds
from opened import checked, measured, opened
from stage import Failed
from talkers import Talker, Talkers

TITLE = "A crowd of WebSockets"
TEXT = (
    "2,000 WebSockets over TLS, on each of which a message of 64 bytes is sent once a second and echoed by the application, "
    "evenly, one WebSocket after the other; every echo must be what was said. Memory is what the proxy's processes hold "
    "(proportional set size) when all have talked, less what they held without, divided by their number: a TLS connection, one "
    "to the application, and what is between. CPU is of a message there and its echo back; the edge asks for the session of "
    "each WebSocket every ten seconds, which is in it. The client and the application are Python on one core: their share of "
    "the way there and back is large, and the same for all. Bare Pingora closes a WebSocket right after its handshake at times "
    "(pingora#946), and is then named as failed. It does not show long messages, nor many at once on one WebSocket."
)
COLUMNS = [
    ["each_kib", "KiB/WebSocket", 1],
    ["cpu_us", "CPU µs/message and echo", 1],
    ["p50_ms", "p50 ms", 2],
    ["p99_ms", "p99 ms", 2],
    ["messages_s", "messages/s", 0],
    ["busy", "core busy", 2],
]
CLIENT = ("python3", "--version")


def count():
    """`CONNECTIONS=`; the edge takes at most 20,000."""
    return rounds.setting("CONNECTIONS", 2_000)


def check(stage, peer, port, token):
    """And whether it lets nobody talk who has no cookie."""
    said, suite = measure.check(stage, peer, port, token)
    Talkers(stage, port, token, 1).close()
    if not peer.checks:
        return f"{said}; 101 to a WebSocket", suite
    stranger = Talker(stage, port, None, ssl.create_default_context(cafile=stage.folder / "cert.pem"))
    stranger.socket.close()
    if stranger.status not in (302, 401):
        raise Failed(f"{peer.name} answers {stranger.status} to a WebSocket without a cookie")
    return f"{said}; 101 to a WebSocket with the cookie, {stranger.status} without", suite


def talk(stage, running, token):
    pid = running.process.pid
    measure.wait(stage, running.port, token)
    # What is held once, whoever comes: pools, caches, the first sessions.
    measure.wrk(stage, running.port, token, 2)
    time.sleep(1)
    before = machine.memory_bytes(pid)
    talkers = Talkers(stage, running.port, token, count())
    try:
        talkers.talk(1, count())
        cpu, begun = machine.cpu_seconds(pid), time.monotonic()
        took = talkers.talk(rounds.seconds(), count())
        cpu, lasted = machine.cpu_seconds(pid) - cpu, time.monotonic() - begun
        within = machine.memory_bytes(pid)
    finally:
        talkers.close()
    return {
        "each_kib": (within - before) / count() / 1024,
        "cpu_us": cpu * 1e6 / len(took),
        "p50_ms": took[len(took) // 2],
        "p99_ms": took[len(took) * 99 // 100],
        "messages_s": len(took) / lasted,
        "busy": cpu / lasted,
    }


def run():
    stage, cores, token = opened()
    os.sched_setaffinity(0, stage.load_cores)
    stage.start_application()
    starts = [(peer, peer.start) for peer in (peers.EDGE, peers.BARE, peers.HAPROXY_ALONE)]
    starts.insert(2, (peers.NGINX_ALONE, peers.nginx("nginx-websockets.conf")))
    subjects = [(peer.name, (peer, peers.behind(start, stage.application_port))) for peer, start in starts]
    rows, ready = checked(stage, cores, token, subjects, check)
    return measured(stage, cores, rows, ready, lambda _name, running: talk(stage, running, token))
