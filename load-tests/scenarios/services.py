"""Many services, each with a certificate of its own: what a request costs, how long the edge takes to start and to reload."""

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from functools import partial

import measure
import peers
import rounds
from opened import checked, measured, opened
from stage import HERE, Failed

TITLE = "Many services"
TEXT = (
    "The hot path of one service among others, each with a host, a certificate and a key file of its own. Start: from the start of "
    "the process to the first answer. Reload: from SIGHUP, with some 3,000 requests a second passing on the same core, of "
    "which none may fail, until the edge tells its service manager that the new configuration is in force (to ask the metrics, which "
    "are megabytes then, would slow it down). Nothing has changed in the files. Requests go to one host; what it costs to find one "
    "of many hosts in turn is among the benches."
)
COLUMNS = [
    ["cpu_us", "CPU µs/request", 1],
    ["start_ms", "start ms", 0],
    ["reload_ms", "reload ms", 0],
    ["reload_failed", "requests failed at reload", 0],
]
FEW, MANY = 10, 10_000
PYTHON = peers.TOOLS / "python3"
NEEDS = [str(PYTHON)]


def certificates(stage, count):
    """Certificates for `s0.test`, `s1.test`, …; made once."""
    folder = stage.folder / "services"
    if not (folder / f"{count - 1}.pem").exists():
        folder.mkdir(exist_ok=True)
        done = subprocess.run([PYTHON, HERE / "certificates.py", folder, str(count)], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"certificates: {done.stderr[-300:]}")
    return folder


def with_services(count, stage, text):
    folder = certificates(stage, count)
    pairs = "".join(
        f"    - {{certificate: {folder}/{one}.pem, key: {folder}/{one}.key}}\n" for one in range(count)
    )
    own = text.split("tls:\n  certificates: [", 1)[1].split("]\n", 1)[0]
    text = text.replace(f"tls:\n  certificates: [{own}]\n", f"tls:\n  certificates:\n    - {own}\n{pairs}")
    more = "".join(f"  s{one}: {{hosts: [s{one}.test], pool: iqueue}}\n" for one in range(count))
    return text.replace("\npools:\n", f"\n{more}pools:\n")


class Manager:
    """What a service manager hears of the edge (sd_notify(3))."""

    def __init__(self, stage):
        self.path = stage.folder / "notify"
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(30)
        self.env = {"NOTIFY_SOCKET": str(self.path)}

    def wait_until_ready(self):
        try:
            while b"READY=1" not in self.socket.recv(4096).split(b"\n"):
                pass
        except TimeoutError:
            raise Failed("not ready within 30 s") from None


def reloads(running):
    """How many good reloads the metrics tell of."""
    connection = http.client.HTTPConnection("127.0.0.1", running.admin, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    counts = [line.rsplit(" ", 1)[1] for line in text.splitlines() if 'config_reloads_total{result="ok"}' in line]
    return sum(float(one) for one in counts)


def reload(stage, running, manager, token):
    """Milliseconds that a reload takes while requests pass, and how many of those failed."""
    passing = {}
    paused = {"connections": 32, "script": "latency.lua", "arguments": ["10"]}
    client = threading.Thread(target=lambda: passing.update(measure.wrk(stage, running.port, token, 6, **paused)))
    client.start()
    time.sleep(1)
    begun = time.monotonic()
    os.kill(running.process.pid, signal.SIGHUP)
    manager.wait_until_ready()
    took = time.monotonic() - begun
    client.join()
    if reloads(running) != 1:
        raise Failed("the configuration was not taken up")
    return took * 1000, passing["failed"]


def once(stage, cores, token, count):
    manager, begun = Manager(stage), time.monotonic()
    running = peers.start_edge(stage, cores, more=partial(with_services, count), env=manager.env)
    try:
        measure.wait(stage, running.port, token)
        started = time.monotonic() - begun
        manager.wait_until_ready()
        figures = measure.measured(stage, running, token, rounds.seconds())
        took, failed = reload(stage, running, manager, token)
        return figures | {"start_ms": started * 1000, "reload_ms": took, "reload_failed": failed}
    finally:
        stage.stop(running.process)
        manager.socket.close()


def run():
    stage, cores, token = opened()
    certificates(stage, MANY)
    subjects = []
    for count in (FEW, MANY):
        start = partial(peers.start_edge, more=partial(with_services, count))
        subjects.append((f"{count:,} services", (peers.EDGE, start)))
    rows, ready = checked(stage, cores, token, subjects)

    def one(name, running):
        # Started anew, so that the start is in the figures.
        stage.stop(running.process)
        return once(stage, cores, token, int(name.split()[0].replace(",", "")))

    return measured(stage, cores, rows, ready, one)
