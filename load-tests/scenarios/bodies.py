"""Long bodies, down and up: what the edge, bare Pingora, nginx and HAProxy spend for what they pass on, and hold of it."""

import machine
import measure
import peers
import rounds
from opened import checked, measured, opened
from stage import Failed

TITLE = "Long bodies"
TEXT = (
    "Downloads and uploads of 8 MiB over four kept TLS connections, one after the other on each. The edge keeps its limits, "
    "which these bodies are within; nginx passes them on as they come and writes none into a file. The bytes of downloads are "
    "counted by wrk, those of uploads by the application, a program of ours that reads and counts. What is gained is the "
    "peak of the resident memory of the proxy's processes less what they held before. Where the proxy's core is not busy, "
    "MiB/s say more of the core that asks and answers. It does not show what is held of a body whose receiver is slower than "
    "its sender, as on loopback neither is for long."
)
COLUMNS = [
    ["cpu_ms_gib", "CPU ms/GiB", 0],
    ["mib_s", "MiB/s", 0],
    ["grown_mib", "memory gained at most, MiB", 1],
    ["busy", "core busy", 2],
    ["bodies", "bodies", 0],
]
BODY = 8 << 20
CLIENTS = 4
DOWN, UP = "down", "up"
WRK = {
    DOWN: {"connections": CLIENTS, "path": "/large"},
    UP: {"connections": CLIENTS, "path": "/upload", "script": "upload.lua", "arguments": [str(BODY)]},
}


def passed(stage, running, token, way):
    measure.wait(stage, running.port, token)
    grown = machine.growth(running.process.pid)
    measure.wrk(stage, running.port, token, 1, **WRK[way])
    before, cpu = measure.counts(stage)["received"], machine.cpu_seconds(running.process.pid)
    figures = measure.wrk(stage, running.port, token, rounds.seconds(), **WRK[way])
    cpu = machine.cpu_seconds(running.process.pid) - cpu
    moved = measure.counts(stage)["received"] - before if way == UP else figures["bytes"]
    if figures["failed"] or not figures["requests"] or moved < figures["requests"] * BODY:
        raise Failed(f"{figures['failed']:.0f} of {figures['requests']:.0f} failed, {moved:.0f} bytes passed")
    return {
        "cpu_ms_gib": cpu * 1000 / moved * (1 << 30),
        "mib_s": moved / (1 << 20) / figures["seconds"],
        "grown_mib": grown(),
        "busy": cpu / figures["seconds"],
        "bodies": figures["requests"],
    }


def run():
    stage, cores, token = opened()
    stage.write("large", "x" * BODY)
    stage.start_application()
    applications = {DOWN: stage.origin_port, UP: stage.application_port}
    starts = [(peer, peer.start) for peer in (peers.EDGE, peers.BARE, peers.HAPROXY_ALONE)]
    starts.insert(2, (peers.NGINX_ALONE, peers.nginx("nginx-bodies.conf")))
    subjects = []
    for way, port in applications.items():
        subjects += [(f"{peer.name}, {way}", (peer, peers.behind(start, port))) for peer, start in starts]
    rows, ready = checked(stage, cores, token, subjects)
    once = lambda name, running: passed(stage, running, token, name.split(", ")[-1])
    return measured(stage, cores, rows, ready, once)
