"""What clients cost that ask for much and take nothing: memory, while they stay and after, and the p99 of others."""

import os
import socket
import subprocess
import sys
import time

import beside
import machine
import measure
import peers
import rounds
from opened import checked, half_rate, measured, opened
from stage import HERE, HOST, Failed

TITLE = "Clients that do not read, beside the traffic"
TEXT = (
    "The hot path at half the rate that the edge can do, alone, and beside 256 connections of one address that keep their "
    "windows shut, or do not read their sockets: a row for each kind, one for all kinds at once, and one for all kinds on "
    "2,048 connections of 8 addresses. Over HTTP/2 each connection asks for 100 streams; the response is 3 MiB long. What is "
    "gained at most is from the kernel's high-water mark; what is left is what the process has more than before, ten seconds "
    "after they have gone, while the traffic goes on; the allocator keeps some of it. The clients share wrk's core. The limits "
    "are the defaults, but that the traffic's own address may have more connections."
)
COLUMNS = [
    ["p99_ms", "p99 ms", 2],
    ["p50_ms", "p50 ms", 2],
    ["requests_s", "requests/s", 0],
    ["grown_mib", "memory gained at most, MiB", 1],
    ["counted_mib", "counted by the edge, MiB", 1],
    ["left_mib", "left ten seconds after, MiB", 1],
    ["open", "connections open", 0],
]
KINDS = (
    "refused-heads,crumbs,error-pages,answers,odd-answers,posted,sign-on,compressed,sockets,posted-sockets,"
    "heads-sockets,uploads,specks,readers,posting-readers,uploaders"
)
ALL = "all of them"
ROWS = [(kind, kind, 256, 1) for kind in KINDS.split(",")]
ROWS += [(f"{ALL}, 256 connections", KINDS, 256, 1), (f"{ALL}, 2,048 connections of 8 addresses", KINDS, 2048, 8)]
# Of one response.
LARGE = 3 << 20


def prepare(stage):
    """A long response, and an application that takes connections and reads nothing."""
    line = bytes(range(32, 127)) * 7
    (stage.folder / "large").write_bytes((line * (LARGE // len(line) + 1))[:LARGE])
    sink = socket.socket()
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sink.bind(("127.0.0.1", 0))
    # Nobody accepts them: the kernel does, and takes what fits.
    sink.listen(65535)
    return sink


def start(sink):
    def more(stage, text):
        routes = [
            "{path: /open, access: public}",
            "{path: /open/packed, access: public, compression: [br]}",
            "{path: /open/unread, access: public, pool: unread}",
        ]
        text = text.replace("pool: iqueue}", f"pool: iqueue, routes: [{', '.join(routes)}]}}")
        return text + f'  unread: {{servers: ["127.0.0.1:{sink.getsockname()[1]}"]}}\n'

    return lambda stage, cores: peers.start_edge(stage, cores, more=more)


def begin(stage, port, kinds, connections, addresses):
    command = [sys.executable, HERE / "stallers.py", port, stage.folder / "cert.pem", HOST, kinds, connections, addresses]

    def before():
        os.sched_setaffinity(0, stage.load_cores)
        os.nice(beside.KIND)

    pipe = subprocess.PIPE
    command = [str(part) for part in command]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=before)


def counted(running):
    """What the edge says that its clients make it hold, in bytes."""
    for line in measure.metrics(running.admin).splitlines():
        if line.startswith("sentry_edge_buffer_bytes "):
            return float(line.split()[1])
    raise Failed("the edge counts no buffers")


def measurement(stage, running, crowd, traffic, token):
    measure.wait(stage, running.port, token)
    traffic(stage, running.port, token, 2)
    grown, before = machine.growth(running.process.pid), machine.memory_bytes(running.process.pid)
    if crowd is None:
        figures = measure.measured(stage, running, token, rounds.seconds(), traffic)
        return figures | {"grown_mib": grown()}
    stallers = begin(stage, running.port, *crowd)
    try:
        # They are connected; and have asked.
        if stallers.stdout.readline() != "ready\n":
            raise Failed("the clients could not connect")
        time.sleep(2)
        figures = measure.measured(stage, running, token, rounds.seconds(), traffic)
        held = counted(running)
        said, errors = stallers.communicate(timeout=60)
    finally:
        stallers.kill()
    if stallers.returncode:
        raise Failed(f"the clients failed: {errors[-400:]}")
    traffic(stage, running.port, token, 10)
    left = machine.memory_bytes(running.process.pid) - before
    mib = 1 << 20
    figures |= {"grown_mib": grown(), "counted_mib": held / mib, "left_mib": left / mib}
    return figures | {"open": measure.figures_in(said)["open"]}


def run():
    stage, cores, token = opened()
    sink = prepare(stage)
    crowds = {name: crowd for name, *crowd in ROWS}
    subjects = [(name, (peers.EDGE, start(sink))) for name in (beside.ALONE, *crowds)]
    rows, ready = checked(stage, cores, token, subjects)
    traffic = half_rate(stage, cores, token)

    def once(name, running):
        return measurement(stage, running, crowds.get(name), traffic, token)

    try:
        return measured(stage, cores, rows, ready, once)
    finally:
        sink.close()
