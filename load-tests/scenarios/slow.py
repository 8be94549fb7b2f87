"""What clients who take their time do to others: the p99 of requests beside 5,000 slow connections of four kinds."""

import os
import socket
import ssl
import threading
import time

import beside
import machine
import measure
import peers
import rounds
from stage import HOST, Failed

TITLE = "Slow connections beside the traffic"
TEXT = (
    "The hot path at half the rate that the edge can do, alone, beside 5,000 slow TLS connections at another edge, and beside "
    "the same at this one: a quarter each drip the head of their first request, drip the head of their second one, drip a "
    "body, and do not read a response of 10 MiB. Each sends a byte every five seconds, one connection after the other. The "
    "edge's deadlines are set to minutes here, so that all of them are open for the whole of a measurement; what ends them "
    "otherwise is in the tests. A single failed request spoils a measurement. The client that drips shares wrk's core, so that the "
    "last row against the first says too much of the edge; against the second it says too little, as the other edge works on "
    "that core too, and as a kernel that has no more memory for TCP stalls both. It does not show what such a crowd does "
    "where the proxy's core is busy."
)
COLUMNS = [
    ["p99_ms", "p99 ms", 2],
    ["p50_ms", "p50 ms", 2],
    ["cpu_us", "CPU µs/request", 1],
    ["requests_s", "requests/s", 0],
    ["held", "slow connections held", 0],
    ["drops_s", "bytes dripped/s", 0],
    ["mib", "MiB", 0],
    ["sockets_mib", "kernel's for TCP, MiB", 0],
]
EVERY = 5
# Of `tcp_info`.
ESTABLISHED = 1
# They come from one address, and those who do not read are to stay.
LIMITS = "connections_per_address: 20000, header_timeout: 10m, buffer_bytes: 8GiB, buffer_bytes_per_address: 8GiB"
PATIENCE = ", read: 10m, write: 10m"


def count():
    """`CONNECTIONS=`; the edge takes at most 20,000."""
    return rounds.setting("CONNECTIONS", 5_000)


class Slow:
    """Connections that are held open, and dripped on by a thread."""

    def __init__(self, stage, port, token):
        fields = "".join(f"{name}: {value}\r\n" for name, value in measure.headers(token).items())
        self.port, self.context = port, ssl.create_default_context(cafile=stage.folder / "cert.pem")
        self.fields = f"Host: {HOST}:{port}\r\n{fields}"
        self.dripped, self.reading, self.over, self.drops = [], [], threading.Event(), 0
        self.thread = threading.Thread(target=self.drip, daemon=True)
        kinds = (self.head, self.second_head, self.body, self.reader)
        for at in range(count()):
            kinds[at % len(kinds)]()
        self.thread.start()

    def connect(self, buffer=None):
        raw = socket.socket()
        if buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        raw.settimeout(10)
        raw.connect(("127.0.0.1", self.port))
        return self.context.wrap_socket(raw, server_hostname=HOST)

    def head(self):
        connection = self.connect()
        connection.sendall(f"GET / HTTP/1.1\r\n{self.fields}X-Slow: ".encode())
        self.dripped.append(connection)

    def second_head(self):
        connection = self.connect()
        connection.sendall(f"GET / HTTP/1.1\r\n{self.fields}\r\n".encode())
        if not connection.recv(16384).startswith(b"HTTP/1.1 200"):
            raise Failed("a slow connection's first request got no answer")
        connection.sendall(f"GET / HTTP/1.1\r\n{self.fields}X-Slow: ".encode())
        self.dripped.append(connection)

    def body(self):
        connection = self.connect()
        connection.sendall(f"POST /upload HTTP/1.1\r\n{self.fields}Content-Length: 1000000\r\n\r\n".encode())
        self.dripped.append(connection)

    def reader(self):
        connection = self.connect(4096)
        connection.sendall(f"GET /large HTTP/1.1\r\n{self.fields}\r\n".encode())
        self.reading.append(connection)

    def drip(self):
        """One connection at a time, evenly: never a burst, nor after a pause."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), beside.KIND)
        step, at = EVERY / max(1, len(self.dripped)), 0
        due = time.monotonic()
        while not self.over.is_set():
            try:
                self.drops += self.dripped[at].send(b"a")
            except OSError:
                pass
            at = (at + 1) % len(self.dripped)
            due = max(due + step, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def held(self):
        """How many the edge has not closed, as the kernel knows."""
        state = lambda connection: connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return sum(state(connection) == ESTABLISHED for connection in self.dripped + self.reading)

    def close(self):
        self.over.set()
        self.thread.join()
        for connection in self.dripped + self.reading:
            connection.close()


def measurement(stage, running, target, traffic, token):
    measure.wait(stage, running.port, token)
    crowd = Slow(stage, target.port, token) if target else None
    try:
        # Whatever is sent at once to those who do not read has been sent.
        time.sleep(2)
        before, begun = crowd.drops if crowd else 0, time.monotonic()
        figures = measure.measured(stage, running, token, rounds.seconds(), traffic)
        drops_s = ((crowd.drops if crowd else 0) - before) / (time.monotonic() - begun)
        held = crowd.held() if crowd else 0
        if crowd and held < count():
            raise Failed(f"{count() - held} of {count()} slow connections were closed")
        mib = machine.memory_bytes(running.process.pid) / 1024 / 1024
        sockets_mib = machine.socket_bytes() / 1024 / 1024
    finally:
        if crowd:
            crowd.close()
    return figures | {"held": held, "drops_s": drops_s, "mib": mib, "sockets_mib": sockets_mib}


def prepare(stage):
    os.sched_setaffinity(0, stage.load_cores)
    stage.write("large", "x" * (10 << 20))


def start(stage, cores):
    return peers.start_edge(stage, cores, limits=LIMITS, patience=PATIENCE)


def run():
    return beside.run(f"{count():,} slow connections", start, measurement, prepare)
