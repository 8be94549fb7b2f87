"""How the cost of a request grows with what there is: live sessions in memcached, and open connections."""

import os
import random
import socket
import ssl
from base64 import urlsafe_b64encode

import measure
import peers
import rounds
import signon
from opened import checked, measured, opened
from scenarios.hot_path import COLUMNS
from stage import HOST, Failed, free_port

TITLE = "Many sessions, many connections"
TEXT = (
    "The hot path with 10 live sessions and with 1,000,000, of which 200 are asked for in turn (each takes a sign-on to "
    "make; the others lie in memcached, of the same size); and with 10,000 idle TLS connections beside the 64 that ask."
)
IN_USE, MANY = 200, 1_000_000
IDLE = 10_000


def fill(stage, count):
    """Sessions that nobody asks for, in the form of the real ones."""
    record = b"1 1700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n"
    with socket.create_connection(("127.0.0.1", stage.memcached_port), 60) as store:
        lines = []
        for at in range(count):
            key = b"s:" + urlsafe_b64encode(random.randbytes(32)).rstrip(b"=")
            lines.append(b"set %s 0 7200 %d noreply\r\n%s\r\n" % (key, len(record), record))
            if len(lines) == 10_000 or at == count - 1:
                store.sendall(b"".join(lines))
                lines.clear()
        store.sendall(b"stats\r\n")
        text = b""
        while not text.endswith(b"END\r\n"):
            text += store.recv(65536)
    held = int(text.split(b"STAT curr_items ")[1].split()[0])
    if held < count:
        raise Failed(f"memcached holds {held} sessions of {count}")


def sign_ons(stage, cores, count):
    running = peers.start_edge(stage, cores)
    url = f"https://{HOST}:{running.port}/"
    tokens = [signon.sign_on(stage, url, peers.USER, peers.PASSWORD) for _ in range(count)]
    stage.stop(running.process)
    return tokens


def cookies(stage, name, tokens):
    return stage.write(name, "".join(f"{signon.TOKEN_COOKIE}={token}\n" for token in tokens))


def idle_connections(stage, running):
    context = ssl.create_default_context(cafile=stage.folder / "cert.pem")
    request = f"GET / HTTP/1.1\r\nHost: {HOST}:{running.port}\r\n\r\n".encode()
    open_now = []
    for _ in range(IDLE):
        raw = socket.create_connection(("127.0.0.1", running.port), 10)
        connection = context.wrap_socket(raw, server_hostname=HOST)
        connection.sendall(request)
        if not connection.recv(16384).startswith(b"HTTP/1.1 "):
            raise Failed(f"connection {len(open_now) + 1} got no answer")
        open_now.append(connection)
    return open_now


def on(port):
    """Starts the edge on one of the two memcacheds."""

    def start(stage, cores):
        stage.memcached_port = port
        return peers.start_edge(stage, cores)

    return start


def run():
    stage, cores, token = opened()
    os.sched_setaffinity(0, stage.load_cores)
    few_port, tokens = stage.memcached_port, {}
    tokens["few"] = sign_ons(stage, cores, 10)
    stage.memcached_port = many_port = free_port()
    stage.start_memcached()
    fill(stage, MANY)
    tokens["many"] = sign_ons(stage, cores, IN_USE)
    many_token = tokens["many"][0]
    few, many, calm, crowd = "10 sessions", f"{MANY:,} sessions", "no idle connections", f"{IDLE:,} idle connections"
    files = {few: cookies(stage, "few", tokens["few"]), many: cookies(stage, "many", tokens["many"])}
    ports = {few: few_port, many: many_port, calm: few_port, crowd: few_port}

    def once(name, running):
        own = many_token if name == many else token
        if name in files:
            script = {"script": "sessions.lua", "arguments": [files[name]]}
            asking = lambda stage, port, token, seconds: measure.wrk(stage, port, token, seconds, **script)
            return measure.measured(stage, running, own, rounds.seconds(), asking)
        held = idle_connections(stage, running) if name == crowd else []
        try:
            return measure.measured(stage, running, own, rounds.seconds())
        finally:
            for connection in held:
                connection.close()

    rows, ready = {}, []
    for name, port in ports.items():
        own = many_token if name == many else token
        more, able = checked(stage, cores, own, [(name, (peers.EDGE, on(port)))])
        rows, ready = rows | more, ready + able
    return measured(stage, cores, rows, ready, once)
