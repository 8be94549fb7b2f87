"""Memory of idle TLS connections: the edge, bare Pingora and nginx with 5,000 of them."""

import os
import socket
import ssl
import time

import machine
import measure
import peers
import rounds
from opened import checked, measured, opened
from stage import HOST, Failed

TITLE = "Idle connections"
TEXT = (
    "TLS connections, each of which has made one request and is kept. Memory is what the proxy's processes hold "
    "(proportional set size) with the connections less what they held without, divided by their number."
)
COLUMNS = [
    ["each_kib", "KiB/connection", 1],
    ["before_mib", "MiB before", 1],
    ["with_mib", "MiB with them", 1],
    ["after_mib", "MiB after them", 1],
]


def count():
    """`CONNECTIONS=`; the edge takes at most 20,000."""
    return rounds.setting("CONNECTIONS", 5_000)


def hold(stage, running, token):
    context = ssl.create_default_context(cafile=stage.folder / "cert.pem")
    fields = "".join(f"{name}: {value}\r\n" for name, value in measure.headers(token).items())
    request = f"GET / HTTP/1.1\r\nHost: {HOST}:{running.port}\r\n{fields}\r\n".encode()
    pid, mib = running.process.pid, 1024 * 1024
    measure.wait(stage, running.port, token)
    # What is held once, whoever comes: pools, caches, the first sessions.
    measure.wrk(stage, running.port, token, 2)
    time.sleep(1)
    before, open_now = machine.memory_bytes(pid), []
    try:
        for _ in range(count()):
            raw = socket.create_connection(("127.0.0.1", running.port), 10)
            connection = context.wrap_socket(raw, server_hostname=HOST)
            open_now.append(connection)
            connection.sendall(request)
            if not connection.recv(16384).startswith(b"HTTP/1.1 200"):
                raise Failed(f"connection {len(open_now)} got no answer")
        time.sleep(2)
        within = machine.memory_bytes(pid)
    finally:
        for connection in open_now:
            connection.close()
    time.sleep(2)
    after = machine.memory_bytes(pid)
    each = (within - before) / count() / 1024
    return {"each_kib": each, "before_mib": before / mib, "with_mib": within / mib, "after_mib": after / mib}


def run():
    stage, cores, token = opened()
    os.sched_setaffinity(0, stage.load_cores)
    subjects = [(peer.name, (peer, peer.start)) for peer in (peers.EDGE, peers.BARE, peers.NGINX_ALONE)]
    rows, ready = checked(stage, cores, token, subjects)
    return measured(stage, cores, rows, ready, lambda _name, running: hold(stage, running, token))
