"""What those who sign on do to those who are signed on: the proxied requests' p99 beside 200 login attempts a second."""

import os
import subprocess
import time
from urllib.parse import urlencode

import measure
import peers
import rounds
import signon
from opened import checked, half_rate, measured, opened
from stage import HERE, HOST, SENTRY_HOST, Failed

TITLE = "Logins beside the traffic"
TEXT = (
    "The hot path at half the rate that the edge can do, alone and beside 200 login attempts a second with a wrong password. "
    "Each attempt that is looked at takes Argon2id with 19 MiB; the edge looks at as many as its one worker can and refuses "
    "the others (503), which is counted below: its line holds 1,024, and it is full before the measurement begins. The worker "
    "and its helper, which takes logins that have waited for 2 s, take what time is left over. The proxy has one core for "
    "all of it."
)
COLUMNS = [
    ["p99_ms", "p99 ms", 2],
    ["p50_ms", "p50 ms", 2],
    ["cpu_us", "CPU µs/request", 1],
    ["requests_s", "requests/s", 0],
    ["looked_at", "logins looked at/s", 1],
    ["refused", "logins refused/s", 1],
    ["waiting", "logins waiting", 0],
]
RATE = 200
# Connections that send logins: 1,024 wait in the edge's line and three have their turn, the others make up the rate.
ATTEMPTING, WAITING = 1_400, 1_027
LINE = 1_024
# Until the line is full. A login that waits is given up after 30 s, and its connection makes one of the others' attempts.
FULL_S, TIMEOUT_S = 60, 45


def begin_logins(stage, port, seconds):
    """Starts a wrk that sends the form, as it is got from the edge once, again and again."""
    browser, origin = signon.Browser(signon.tls_context(stage)), f"https://{SENTRY_HOST}:{port}"
    _, page = browser.open(f"{origin}/login")
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies[SENTRY_HOST].items())
    pause = 1000 * (ATTEMPTING - WAITING) // RATE
    # wrk asks the system for addresses, which knows no name under localhost: the authority is in the Host field.
    command = ["wrk", "-t1", f"-c{ATTEMPTING}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_S}s", "-s", HERE / "logins.lua"]
    fields = {"Host": f"{SENTRY_HOST}:{port}", "Origin": origin, "Sec-Fetch-Site": "same-origin"}
    fields |= {"User-Agent": signon.USER_AGENT, "Content-Type": "application/x-www-form-urlencoded"}
    for name, value in fields.items():
        command += ["-H", f"{name}: {value}"]
    command += [f"https://{HOST}:{port}/login", "--", cookie, urlencode(signon.form_fields(page)), pause]
    pin = lambda: os.sched_setaffinity(0, stage.load_cores)
    command = [str(part) for part in command]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=pin)


def logins(running):
    """What the edge has counted: logins that were looked at and refused, those that found no room or waited too long, and
    how many wait."""
    values = {}
    for line in measure.metrics(running.admin).splitlines():
        if line.startswith(("sentry_edge_logins_total{", "sentry_edge_login_queue ")):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    result = lambda name: values.get(f'sentry_edge_logins_total{{result="{name}"}}', 0.0)
    return result("refused"), result("busy"), values["sentry_edge_login_queue"]


def until_full(running, client):
    deadline = time.monotonic() + FULL_S
    # Places are free for a moment whenever one has had its turn.
    while (waiting := logins(running)[2]) < 0.95 * LINE:
        if time.monotonic() > deadline or client.poll() is not None:
            raise Failed(f"{waiting:.0f} logins wait, not {LINE}")
        time.sleep(0.2)


def with_logins(stage, running, token, traffic, rate):
    if not rate:
        return measure.measured(stage, running, token, rounds.seconds(), traffic) | {"looked_at": 0, "refused": 0}
    measure.wait(stage, running.port, token)
    client = begin_logins(stage, running.port, rounds.seconds() + FULL_S + 30)
    try:
        until_full(running, client)
        before, begun = logins(running), time.monotonic()
        figures = measure.measured(stage, running, token, rounds.seconds(), traffic)
        after, lasted = logins(running), time.monotonic() - begun
    finally:
        client.kill()
        client.wait()
    looked_at, refused = ((now - then) / lasted for now, then in zip(after[:2], before[:2]))
    if not looked_at or looked_at + refused < 0.75 * rate:
        raise Failed(f"not {rate} logins a second: {looked_at:.1f} looked at, {refused:.1f} refused")
    return figures | {"looked_at": looked_at, "refused": refused, "waiting": after[2]}


def run():
    stage, cores, token = opened()
    subjects = [(name, (peers.EDGE, peers.start_edge)) for name in ("no logins", f"{RATE} logins/s")]
    rows, ready = checked(stage, cores, token, subjects)
    traffic = half_rate(stage, cores, token)
    once = lambda name, running: with_logins(stage, running, token, traffic, 0 if name.startswith("no") else RATE)
    return measured(stage, cores, rows, ready, once)
