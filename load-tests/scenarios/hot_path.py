"""The whole hot path over TLS keep-alive: the edge, bare Pingora and the peers, one at a time on one core."""

import measure
import peers
import rounds
from opened import checked, measured, opened

TITLE = "The hot path"
TEXT = (
    "Requests over 64 kept TLS connections (`wrk -t1 -c64`) to a proxy with one thread on a core of its own; wrk, an nginx "
    "that answers 128 bytes and memcached are on the others. Each proxy is started, warmed up for a second, measured and stopped "
    "again, in turn. CPU is user and system time of all of the proxy's processes. A proxy whose core is not busy wakes up "
    "more often for less, which costs it something."
)
COLUMNS = [
    ["cpu_us", "CPU µs/request", 1],
    ["requests_s", "requests/s", 0],
    ["p50_ms", "p50 ms", 2],
    ["p99_ms", "p99 ms", 2],
    ["busy", "core busy", 2],
]


def run():
    stage, cores, token = opened()
    rows, ready = checked(stage, cores, token, [(peer.name, (peer, peer.start)) for peer in peers.ALL])
    once = lambda _name, running: measure.measured(stage, running, token, rounds.seconds())
    return measured(stage, cores, rows, ready, once)
