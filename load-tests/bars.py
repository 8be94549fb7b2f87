"""The bars that this project has set itself, held against the numbers of a run.

`python3 load-tests/bars.py load-tests/results/DATE.json` prints them.
"""

import json
import sys

from rounds import ratio

# Name, what is compared, scenario, figure, the row that is measured, the row it is held against, at most, and the goal
# that lies further away.
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
    ("P8", "CPU with the access log / without", "logs", "cpu_us", "access log on", "access log off", 1.06, 1.03),
]


def figures(numbers, scenario, name):
    rows = numbers["scenarios"].get(scenario, {}).get("rows", [])
    return next((row["figures"] for row in rows if row["name"] == name and not row.get("failed")), [])


def judged(measured, bar, goal):
    if bar is None:
        return "goal met" if measured <= goal else "goal not met"
    if measured > bar:
        return "**not met**"
    return "met, and the goal" if goal is not None and measured <= goal else "met"


def table(numbers):
    text = ["| | | measured | bar | goal | |", "|---|---|---:|---:|---:|---|"]
    for name, what, scenario, key, mine, theirs, bar, goal in BARS:
        ours = figures(numbers, scenario, mine)
        measured = ratio(ours, figures(numbers, scenario, theirs), key)
        said = ["not measured", ""] if measured is None else [f"{measured:.2f}", judged(measured, bar, goal)]
        limits = [f"{limit:.2f}" if limit is not None else "" for limit in (bar, goal)]
        text.append(f"| {name} | {what} | {said[0]} | {limits[0]} | {limits[1]} | {said[1]} |")
    return text


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print("\n".join(table(json.load(file))))
