"""The latency that a proxy adds when it has time to spare: the edge and bare Pingora at the same, moderate rate."""

import measure
import peers
import rounds
from opened import checked, measured, opened
from stage import HERE

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
CONNECTIONS = 32


def run():
    stage, cores, token = opened()
    subjects = [(peer.name, (peer, peer.start)) for peer in (peers.EDGE, peers.BARE, peers.NGINX_ALONE)]
    rows, ready = checked(stage, cores, token, subjects)
    running = peers.start_edge(stage, cores)
    most = measure.measured(stage, running, token, rounds.seconds())["requests_s"]
    stage.stop(running.process)
    pause = 2000 * CONNECTIONS / most

    def paused(stage, port, token, seconds):
        return measure.wrk(stage, port, token, seconds, CONNECTIONS, script="latency.lua", arguments=[f"{pause:.3f}"])

    once = lambda _name, running: measure.measured(stage, running, token, rounds.seconds(), paused)
    return measured(stage, cores, rows, ready, once)
