"""The bars that this project has set itself, held against the numbers of a run.

`python3 load-tests/bars.py load-tests/results/DATE.json` prints them.
"""

import json
import sys
from statistics import median

from rounds import middle, ratio

# Before a row's name: not divided by it, but its figure taken away.
LESS = "less "
# Before the end of rows' names: whichever of them is the worst.
WORST = "the worst of "
# Of `windows`.
CLIENT, CLIENTS = f"{WORST}: 256 connections of a client", f"{WORST}: 2048 connections of 8 clients"
ALL_CLIENTS = "all of them: 2048 connections of 8 clients"

# Name, what is compared, scenario, figure, the row that is measured, the row it is held against (none: the figure itself
# is meant), at most, and the goal that lies further away.
BARS = [
    ("P1", "hot path over TLS / HAProxy jwt_verify", "hot-path", "cpu_us", "sentry-edge", "HAProxy jwt_verify", 1.00, None),
    ("P1", "hot path over TLS / bare Pingora", "hot-path", "cpu_us", "sentry-edge", "bare Pingora", 1.15, None),
    ("P1", "hot path over TLS / nginx, which checks nothing", "hot-path", "cpu_us", "sentry-edge", "nginx", None, 1.10),
    ("P2", "hot path / Envoy jwt_authn", "hot-path", "cpu_us", "sentry-edge", "Envoy jwt_authn", 0.45, 0.35),
    ("P2", "hot path / nginx + Lua + memcached", "hot-path", "cpu_us", "sentry-edge", "nginx + Lua + memcached", 0.38, 0.30),
    ("P2", "hot path / Traefik forwardAuth", "hot-path", "cpu_us", "sentry-edge", "Traefik forwardAuth", 0.15, 0.10),
    ("P3", "CPU with 2 workers / with 1", "threads", "cpu_us", "sentry-edge, 2 threads", "sentry-edge, 1 thread", 1.06, 1.02),
    ("P3", "CPU with 4 workers / with 1", "threads", "cpu_us", "sentry-edge, 4 threads", "sentry-edge, 1 thread", 1.25, 1.10),
    ("P4", "full handshake / nginx", "handshakes", "cpu_us", "sentry-edge, full", "nginx, full", 0.75, 0.65),
    ("P4", "resumed handshake / full", "handshakes", "cpu_us", "sentry-edge, resumed", "sentry-edge, full", 0.50, None),
    ("P5", "memory of an idle TLS connection / nginx", "connections", "each_kib", "sentry-edge", "nginx", 1.00, 0.50),
    ("P6", "p99 beside 200 logins a second / without", "logins", "p99_ms", "200 logins/s", "no logins", 1.50, 1.20),
    ("P7", "CPU with 10,000 services / with 10", "services", "cpu_us", "10,000 services", "10 services", 1.05, None),
    ("P7", "start with 10,000 services, ms", "services", "start_ms", "10,000 services", None, 2000, 1000),
    ("P7", "reload with 10,000 services, ms", "services", "reload_ms", "10,000 services", None, 500, 100),
    ("P7", "requests that failed at the reload", "services", "reload_failed", "10,000 services", None, 0, None),
    ("P8", "CPU with the access log / without", "logs", "cpu_us", "access log on", "access log off", 1.06, 1.03),
    ("P9", "median latency less bare Pingora's, ms", "latency", "p50_ms", "sentry-edge", "less bare Pingora", 0.060, 0.030),
    ("P10", "CPU with 1,000,000 sessions / with 10", "sessions", "cpu_us", "1,000,000 sessions", "10 sessions", 1.05, None),
    ("P10", "CPU with 10,000 idle connections / with none", "sessions", "cpu_us", "10,000 idle connections", "no idle connections", 1.05, None),
    ("R6", "p99 beside 5,000 slow connections / without", "slow", "p99_ms", "5,000 slow connections", "alone", 2.00, None),
    ("R6", "p99 beside 5,000 slow connections / with them elsewhere", "slow", "p99_ms", "5,000 slow connections", "5,000 slow connections at another edge", 2.00, None),
    ("R7", "p99 beside HTTP/2 floods / without", "floods", "p99_ms", "floods", "alone", 2.00, None),
    ("R7", "p99 beside HTTP/2 floods / with them elsewhere", "floods", "p99_ms", "floods", "floods at another edge", 2.00, None),
    ("R7", "memory gained in HTTP/2 floods, MiB", "floods", "grown_mib", "floods", None, 64, None),
    ("R7", "the longest HTTP/2 flood, ms", "floods", "longest_ms", "floods", None, 2000, None),
    ("R8", "memory gained by 256 connections that do not read, MiB", "windows", "grown_mib", CLIENT, None, 128, None),
    ("R8", "memory gained by 2,048 of 8 clients, MiB", "windows", "grown_mib", CLIENTS, None, 1024, None),
    ("R8", "what the edge counts of them ten seconds after, MiB", "windows", "counted_after_mib", CLIENTS, None, 0, None),
    ("R8", "memory left then, MiB", "windows", "left_mib", CLIENTS, None, 64, None),
    ("R8", "p99 beside 256 of them / without", "windows", "p99_ms", CLIENT, "alone", 2.00, None),
    ("R8", "p99 beside 2,048 of them / without", "windows", "p99_ms", CLIENTS, "alone", 2.00, None),
    ("R8", "p99 beside 2,048 of them / with them elsewhere", "windows", "p99_ms", ALL_CLIENTS, f"{ALL_CLIENTS} at another edge", 2.00, None),
    ("R9", "of 300 right logins within 60 s, kept out", "login-peak", "kept_out", "300 logins within 60 s", None, 0, None),
    ("R9", "p99 of 300 sign-ons within 60 s, ms", "login-peak", "p99_ms", "300 logins within 60 s", None, 15000, None),
    ("R9", "of a known device's logins amid 1,000 guesses, kept out", "login-peak", "kept_out", "a known device amid 1,000 guesses", None, 0, None),
]


def figures(numbers, scenario, name):
    rows = numbers["scenarios"].get(scenario, {}).get("rows", [])
    return next((row["figures"] for row in rows if row["name"] == name and not row.get("failed")), [])


def compared(numbers, scenario, key, mine, theirs):
    """The ratio of two rows, their difference, or what one row says."""
    if mine.startswith(WORST):
        rows = numbers["scenarios"].get(scenario, {}).get("rows", [])
        names = [row["name"] for row in rows if row["name"].endswith(mine.removeprefix(WORST))]
        each = [compared(numbers, scenario, key, name, theirs) for name in names]
        # A row that failed is no better than the others.
        return None if None in each else max(each, default=None)
    ours = figures(numbers, scenario, mine)
    if theirs is None:
        return middle(ours, key)
    if not theirs.startswith(LESS):
        return ratio(ours, figures(numbers, scenario, theirs), key)
    base = figures(numbers, scenario, theirs.removeprefix(LESS))
    pairs = [one[key] - other[key] for one, other in zip(ours, base)]
    return median(pairs) if pairs else None


def judged(measured, bar, goal):
    if bar is None:
        return "goal met" if measured <= goal else "goal not met"
    if measured > bar:
        return "**not met**"
    return "met, and the goal" if goal is not None and measured <= goal else "met"


def table(numbers):
    text = ["| | | measured | bar | goal | |", "|---|---|---:|---:|---:|---|"]
    for name, what, scenario, key, mine, theirs, bar, goal in BARS:
        measured = compared(numbers, scenario, key, mine, theirs)
        digits = 0 if theirs is None else 3 if theirs.startswith(LESS) else 2
        said = ["not measured", ""] if measured is None else [f"{measured:,.{digits}f}", judged(measured, bar, goal)]
        limits = [f"{limit:,.{digits}f}" if limit is not None else "" for limit in (bar, goal)]
        text.append(f"| {name} | {what} | {said[0]} | {limits[0]} | {limits[1]} | {said[1]} |")
    return text


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print("\n".join(table(json.load(file))))
