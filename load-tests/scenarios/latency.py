"""The latency that a proxy adds when it has time to spare: the edge and bare Pingora at the same, moderate rate."""

import measure
import peers
import rounds
from opened import checked, half_rate, measured, opened

TITLE = "Added latency"
TEXT = (
    "Requests at half the rate that the edge can do, over 32 kept TLS connections that pause between requests, so that "
    "nobody queues for long. Latency is from the request to the whole answer, origin included: what matters is the difference."
)
COLUMNS = [
    ["p50_ms", "p50 ms", 3],
    ["p99_ms", "p99 ms", 2],
    ["requests_s", "requests/s", 0],
    ["busy", "core busy", 2],
    ["cpu_us", "CPU µs/request", 1],
]


def run():
    stage, cores, token = opened()
    subjects = [(peer.name, (peer, peer.start)) for peer in (peers.EDGE, peers.BARE, peers.NGINX_ALONE)]
    rows, ready = checked(stage, cores, token, subjects)
    paused = half_rate(stage, cores, token)
    once = lambda _name, running: measure.measured(stage, running, token, rounds.seconds(), paused)
    return measured(stage, cores, rows, ready, once)
