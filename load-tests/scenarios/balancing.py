"""`least_request` beside `round_robin`, where one of four servers is five times slower than the others."""

from functools import partial

import measure
import peers
import rounds
from opened import checked, measured, opened
from stage import free_port

TITLE = "Policies and a slow server"
TEXT = (
    "64 connections, each of which asks again as soon as it has its answer, at a pool of four applications: three answer after "
    "10 ms, give or take a half, one after 50 ms. Every request has a cookie, and its session is checked. With `round_robin` the "
    "slow server gets a quarter of the requests, and most connections wait for it; with `least_request` it gets what it can do. "
    "The applications share wrk's core, and answer few thousand requests a second: the figures compare the policies, not proxies."
)
COLUMNS = [
    ["p50_ms", "p50 ms", 1],
    ["p99_ms", "p99 ms", 1],
    ["requests_s", "requests/s", 0],
    ["slow_percent", "% to the slow server", 1],
]
SERVERS, LATE_S, SLOWER = 4, 0.010, 5
POLICIES = ["round_robin", "least_request"]
SERVICE = "pool: iqueue}\n"


def with_pool(policy, ports, _, text):
    servers = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    text = text.replace(SERVICE, "pool: iqueue, routes: [{path: /late, pool: late}]}\n", 1)
    return f"{text}  late: {{servers: [{servers}], balance: {policy}, timeouts: {{idle: 300s}}}}\n"


def answered(running, port):
    """How many requests a server has answered."""
    labels = f'{{pool="late",result="answered",server="127.0.0.1:{port}"}} '
    lines = measure.metrics(running.admin).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if f"upstream_requests_total{labels}" in line)


def measurement(stage, ports, token, _, running):
    load = partial(measure.wrk, path="/late")
    figures = measure.measured(stage, running, token, rounds.seconds(), load)
    counts = [answered(running, port) for port in ports]
    return figures | {"slow_percent": 100 * counts[0] / sum(counts)}


def run():
    stage, cores, token = opened()
    ports = [free_port() for _ in range(SERVERS)]
    for at, port in enumerate(ports):
        stage.start_application(port, LATE_S * (SLOWER if at == 0 else 1))
    start = lambda policy: partial(peers.start_edge, more=partial(with_pool, policy, ports))
    rows, ready = checked(stage, cores, token, [(policy, (peers.EDGE, start(policy))) for policy in POLICIES])
    return measured(stage, cores, rows, ready, partial(measurement, stage, ports, token))
