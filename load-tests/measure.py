"""Measures a proxy under load: requests by wrk, and what the proxy's processes used of the processor meanwhile."""

import http.client
import os
import socket
import subprocess
import time

import machine
import signon
from stage import HERE, HOST, Failed

CONNECTIONS = 64


def headers(token):
    return {"User-Agent": signon.USER_AGENT, "Cookie": f"{signon.TOKEN_COOKIE}={token}"}


def ask(stage, port, fields):
    """One request on a connection of its own: its status and the TLS version and suite."""
    connection = signon.Connection(HOST, port, signon.tls_context(stage))
    try:
        connection.request("GET", "/", headers={"User-Agent": signon.USER_AGENT} | fields)
        response = connection.getresponse()
        body = response.read()
        return response.status, len(body), " ".join(connection.sock.cipher()[1::-1])
    finally:
        connection.close()


def wait(stage, port, token, ask=ask):
    """Until it answers as it should: some listen before they know their routes."""
    deadline = time.monotonic() + 10
    while True:
        try:
            status, length, _ = ask(stage, port, headers(token))
        except OSError as error:
            status, length = str(error), 0
        if (status, length) == (200, 128):
            return
        if time.monotonic() > deadline:
            raise Failed(f"a good cookie gets {status} with {length} bytes, not 200 with 128")
        time.sleep(0.1)


def check(stage, peer, port, token, ask=ask):
    """Whether it does what it is said to do: 200 with the cookie, 401 or a redirect without, 401 with a forged one."""
    wait(stage, port, token, ask)
    _, _, suite = ask(stage, port, headers(token))
    if not peer.checks:
        return "proxies only, checks nothing", suite
    without, _, _ = ask(stage, port, {})
    if without not in (302, 401):
        raise Failed(f"{peer.name} answers {without} without a cookie")
    said = f"200 with the cookie, {without} without"
    if peer.does.startswith("token"):
        forged, _, _ = ask(stage, port, headers(token[:-8] + "AAAAAAAA"))
        if forged not in (302, 401):
            raise Failed(f"{peer.name} answers {forged} to a forged cookie")
        said += f", {forged} with a forged one"
    return said, suite


def wrk_command(port, token, seconds, connections=CONNECTIONS, script="figures.lua", arguments=(), path="/", patience=2):
    """An answer that takes more than `patience` seconds is a failure."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{patience}s", "-s", HERE / script]
    for name, value in headers(token).items():
        command += ["-H", f"{name}: {value}"]
    command += [f"https://{HOST}:{port}{path}", "--", *arguments]
    return [str(part) for part in command]


def wrk(stage, port, token, seconds, *more, **options):
    """Requests, failures and latencies in milliseconds."""
    done = subprocess.run(
        wrk_command(port, token, seconds, *more, **options),
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        preexec_fn=lambda: os.sched_setaffinity(0, stage.load_cores),
    )
    return figures_in(done.stdout + done.stderr)


def metrics(admin):
    """What the edge's admin listener shows."""
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def counts(stage):
    """What the application has counted."""
    connection = http.client.HTTPConnection("127.0.0.1", stage.application_port, timeout=10)
    try:
        connection.request("GET", "/counts")
        return figures_in(connection.getresponse().read().decode())
    finally:
        connection.close()


def figures_in(said):
    """What a client says in its one line for programs: `figures name=value …`."""
    for line in said.splitlines():
        if line.startswith("figures "):
            return {name: float(value) for name, value in (part.split("=") for part in line.split()[1:])}
    raise Failed(f"no figures: {said[-400:]}")


def measured(stage, running, token, seconds, during=wrk):
    """One measurement after a second of warming up; a single failed request spoils it."""
    wait(stage, running.port, token)
    during(stage, running.port, token, 1)
    before = machine.cpu_seconds(running.process.pid)
    figures = during(stage, running.port, token, seconds)
    cpu = machine.cpu_seconds(running.process.pid) - before
    if figures["failed"]:
        raise Failed(f"{figures['failed']:.0f} of {figures['requests']:.0f} requests failed")
    status, _, _ = ask(stage, running.port, headers(token))
    if status != 200:
        raise Failed(f"it answered {status} after the measurement")
    return {
        "cpu_us": cpu * 1e6 / figures["requests"],
        "requests_s": figures["requests"] / figures["seconds"],
        "p50_ms": figures["p50"],
        "p99_ms": figures["p99"],
        "busy": cpu / figures["seconds"],
    }


def remember_session(stage, token):
    """Puts a session of the same size into memcached for the Lua guard, which has keys of its own."""
    record = "x" * 120
    with socket.create_connection(("127.0.0.1", stage.memcached_port), 5) as store:
        store.sendall(f"set session:{signon.claims(token)['sid']} 0 3600 {len(record)}\r\n{record}\r\n".encode())
        if not store.recv(64).startswith(b"STORED"):
            raise Failed("memcached does not store")
