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
    "the others (503), which is counted below. The proxy has one core for both."
)
COLUMNS = [
    ["p99_ms", "p99 ms", 2],
    ["p50_ms", "p50 ms", 2],
    ["cpu_us", "CPU µs/request", 1],
    ["requests_s", "requests/s", 0],
    ["looked_at", "logins looked at/s", 1],
    ["refused", "logins refused/s", 1],
]
RATE = 200
# Those who try to sign on; at most 65 of them are being looked at or wait, the others make up the rate.
ATTEMPTING, WAITING = 256, 65


def begin_logins(stage, port, seconds):
    """Starts a wrk that sends the form, as it is got from the edge once, again and again."""
    browser, origin = signon.Browser(signon.tls_context(stage)), f"https://{SENTRY_HOST}:{port}"
    _, page = browser.open(f"{origin}/login")
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies[SENTRY_HOST].items())
    pause = 1000 * (ATTEMPTING - WAITING) // RATE
    # wrk asks the system for addresses, which knows no name under localhost: the authority is in the Host field.
    command = ["wrk", "-t1", f"-c{ATTEMPTING}", f"-d{seconds}s", "--timeout", "20s", "-s", HERE / "logins.lua"]
    fields = {"Host": f"{SENTRY_HOST}:{port}", "Origin": origin, "Sec-Fetch-Site": "same-origin"}
    fields |= {"User-Agent": signon.USER_AGENT, "Content-Type": "application/x-www-form-urlencoded"}
    for name, value in fields.items():
        command += ["-H", f"{name}: {value}"]
    command += [f"https://{HOST}:{port}/login", "--", cookie, urlencode(signon.form_fields(page)), pause]
    pin = lambda: os.sched_setaffinity(0, stage.load_cores)
    command = [str(part) for part in command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin)


def with_logins(stage, running, token, traffic, rate):
    if not rate:
        return measure.measured(stage, running, token, rounds.seconds(), traffic) | {"looked_at": 0, "refused": 0}
    measure.wait(stage, running.port, token)
    # Begins before the warming up and lasts a little longer than the measurement.
    client = begin_logins(stage, running.port, rounds.seconds() + 4)
    try:
        time.sleep(1)
        figures = measure.measured(stage, running, token, rounds.seconds(), traffic)
        said, _ = client.communicate(timeout=60)
    finally:
        client.kill()
    counted = measure.figures_in(said)
    each_second = {name: counted[name] / counted["seconds"] for name in ("looked_at", "refused")}
    if not counted["looked_at"] or sum(each_second.values()) < 0.75 * rate:
        raise Failed(f"not {rate} logins a second: {counted}")
    return figures | each_second


def run():
    stage, cores, token = opened()
    subjects = [(name, (peers.EDGE, peers.start_edge)) for name in ("no logins", f"{RATE} logins/s")]
    rows, ready = checked(stage, cores, token, subjects)
    traffic = half_rate(stage, cores, token)
    once = lambda name, running: with_logins(stage, running, token, traffic, 0 if name.startswith("no") else RATE)
    return measured(stage, cores, rows, ready, once)
