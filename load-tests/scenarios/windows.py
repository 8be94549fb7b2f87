"""What clients cost that ask for much and take nothing: memory, while they stay and after, and the p99 of others."""

import os
import select
import socket
import subprocess
import sys
import time
from collections import Counter

import beside
import machine
import measure
import peers
import rounds
from opened import checked, half_rate, measured, opened
from stage import HERE, HOST, Failed

TITLE = "Clients that do not read, beside the traffic"
TEXT = (
    "The hot path at half the rate that the edge can do, alone, and beside connections that keep their windows shut, or do not "
    "read their sockets: 256 of one client, and 2048 of eight, for each kind and for all kinds at once. A client is an "
    "address and a process. Over HTTP/2 each connection asks for 100 streams; the response is 3 MiB long. One that the edge "
    "has closed is opened again, 50 a second of each client. What is gained at most is from the kernel's high-water mark. "
    "What is left is what the process has more than before, ten seconds after they have gone, while the traffic goes on; the "
    "allocator keeps some of it, and the first row says how much the traffic alone gains. What is counted then is what the "
    "edge itself still holds for requests. The clients share wrk's core, so that a p99 against the first row says too much of "
    "the edge; against the last row, where the same clients are at another edge, which works on that core too, it says too "
    "little. The limits are the defaults, but that the traffic's own address may have more connections."
)
COLUMNS = [
    ["p99_ms", "p99 ms", 2],
    ["p50_ms", "p50 ms", 2],
    ["requests_s", "requests/s", 0],
    ["grown_mib", "memory gained at most, MiB", 1],
    ["counted_mib", "counted by the edge, MiB", 1],
    ["left_mib", "left ten seconds after, MiB", 1],
    ["counted_after_mib", "counted then, MiB", 3],
    ["open", "connections open", 0],
    ["closed_s", "closed by the edge/s", 1],
]
KINDS = (
    "refused-heads,crumbs,error-pages,answers,odd-answers,posted,sign-on,compressed,sockets,posted-sockets,"
    "heads-sockets,uploads,specks,readers,posting-readers,uploaders"
)
ALL = "all of them"
# `CONNECTIONS=` of eight clients. No commas in the names: `ONLY=` has them between names.
MANY = rounds.setting("CONNECTIONS", 2048)
ONE_CLIENT, EIGHT_CLIENTS = f"{MANY // 8} connections of a client", f"{MANY} connections of 8 clients"
SIZES = {ONE_CLIENT: (MANY // 8, 1), EIGHT_CLIENTS: (MANY, 8)}
ROWS = {f"{kind}: {size}": (kind, *SIZES[size]) for size in SIZES for kind in KINDS.split(",")}
ROWS |= {f"{ALL}: {size}": (KINDS, *SIZES[size]) for size in SIZES}
# The same clients, and another edge that they are at.
ELSEWHERE = f"{ALL}: {EIGHT_CLIENTS} at another edge"
ROWS[ELSEWHERE] = (KINDS, *SIZES[EIGHT_CLIENTS])
# Of one response.
LARGE = 3 << 20
MIB = 1 << 20
# Until all have been open once, and for what they say at the end; until the edge has noticed who is gone.
READY_S, END_S = 240, 60
NOTICED_S = 5


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


class Clients:
    """A process for each of the addresses 127.0.0.2, 127.0.0.3, …, with its part of the connections."""

    def __init__(self, stage, port, kinds, connections, addresses):
        self.connections, self.processes = connections, []
        for at in range(addresses):
            command = [sys.executable, HERE / "stallers.py", port, stage.folder / "cert.pem", HOST, kinds]
            command += [connections // addresses, f"127.0.0.{2 + at}"]
            self.processes.append(self.start(stage, [str(part) for part in command]))

    def start(self, stage, command):
        def before():
            os.sched_setaffinity(0, stage.load_cores)
            os.nice(beside.KIND)

        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=before)

    def wait(self):
        """Until all connections have been open once."""
        deadline = time.monotonic() + READY_S
        for process in self.processes:
            readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable or process.stdout.readline() != "ready\n":
                raise Failed("the clients could not open all their connections")

    def end(self):
        """What became of the connections, of all clients together."""
        counts = Counter()
        for process in self.processes:
            process.stdin.close()
            process.stdin = None
        for process in self.processes:
            said, errors = process.communicate(timeout=END_S)
            if process.returncode:
                raise Failed(f"a client failed: {errors[-400:]}")
            counts.update(measure.figures_in(said))
        if counts["opened"] < self.connections:
            raise Failed(f"{counts['opened']:.0f} of {self.connections} connections were opened")
        return counts

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()


def counted(running):
    """What the edge says that its clients make it hold, in bytes."""
    for line in measure.metrics(running.admin).splitlines():
        if line.startswith("sentry_edge_buffer_bytes "):
            return float(line.split()[1])
    raise Failed("the edge counts no buffers")


def measurement(stage, running, target, clients, traffic, token):
    """`target` is the edge that the clients are at, if there are any."""
    measure.wait(stage, running.port, token)
    traffic(stage, running.port, token, 2)
    grown, before = machine.growth(running.process.pid), machine.memory_bytes(running.process.pid)
    figures = beside_clients(stage, running, target, clients, traffic, token)
    figures["grown_mib"] = grown()
    traffic(stage, running.port, token, 10)
    figures["left_mib"] = (machine.memory_bytes(running.process.pid) - before) / MIB
    figures["counted_after_mib"] = counted_in_the_end(running) / MIB
    return figures


def counted_in_the_end(running):
    """When the last requests of the traffic have been noticed to be gone."""
    deadline = time.monotonic() + NOTICED_S
    while held := counted(running):
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return held


def beside_clients(stage, running, target, clients, traffic, token):
    if target is None:
        return measure.measured(stage, running, token, rounds.seconds(), traffic)
    clients, begun = Clients(stage, target.port, *clients), time.monotonic()
    try:
        clients.wait()
        # What they have asked for is there.
        time.sleep(2)
        figures = measure.measured(stage, running, token, rounds.seconds(), traffic)
        held, lasted = counted(running), time.monotonic() - begun
        counts = clients.end()
    finally:
        clients.kill()
    return figures | {"counted_mib": held / MIB, "open": counts["open"], "closed_s": counts["closed"] / lasted}


def run():
    stage, cores, token = opened()
    sink = prepare(stage)
    subjects = [(name, (peers.EDGE, start(sink))) for name in (beside.ALONE, *ROWS)]
    rows, ready = checked(stage, cores, token, subjects[:1])
    # They differ in what comes to the edge, not in the edge.
    for name, (_, begin) in rounds.chosen(subjects)[1:]:
        rows[name] = rows[beside.ALONE] | {"name": name, "figures": []}
        ready += [(name, begin)] if ready else []
    traffic = half_rate(stage, cores, token)

    def once(name, running):
        if name != ELSEWHERE:
            return measurement(stage, running, running if name in ROWS else None, ROWS.get(name), traffic, token)
        other = beside.start_other(stage, start(sink))
        try:
            return measurement(stage, running, other, ROWS[name], traffic, token)
        finally:
            stage.stop(other.process)

    try:
        return measured(stage, cores, rows, ready, once)
    finally:
        sink.close()
