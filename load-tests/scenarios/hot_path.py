"""The whole hot path over TLS keep-alive: the edge, bare Pingora and the peers, one at a time on one core."""

import machine
import measure
import peers
import rounds
import signon
from stage import HOST, Failed, Stage

TITLE = "The hot path"
TEXT = (
    "Requests over 64 kept TLS connections to a proxy with one thread on a core of its own; wrk, an nginx that answers "
    "128 bytes and memcached are on the others. Each proxy is started, warmed up for a second, measured and stopped "
    "again, in turn. CPU is user and system time of all of the proxy's processes."
)
COLUMNS = [
    ["cpu_us", "CPU µs/request", 1],
    ["requests_s", "requests/s", 0],
    ["p50_ms", "p50 ms", 2],
    ["p99_ms", "p99 ms", 2],
    ["busy", "core busy", 2],
]


def sign_on(stage, cores):
    """A token cookie that every proxy is then shown, got from the edge as a browser gets it."""
    edge = peers.start_edge(stage, cores)
    token = signon.sign_on(stage, f"https://{HOST}:{edge.port}/", peers.USER, peers.PASSWORD)
    stage.stop(edge.process)
    measure.remember_session(stage, token)
    return token


def run():
    proxy_cores, load_cores = machine.layout()
    stage = Stage(load_cores)
    stage.start_origin()
    stage.start_memcached()
    token = sign_on(stage, proxy_cores)
    rows, ready = {}, []
    for name, peer in rounds.chosen([(peer.name, peer) for peer in peers.ALL]):
        row = rows[name] = {"name": name, "does": peer.does, "figures": [], "missing": peer.missing()}
        if row["missing"]:
            rounds.say(f"  {name}: MISSING, it needs {row['missing']}")
            continue
        try:
            running = peer.start(stage, proxy_cores)
            row["check"], row["suite"] = measure.check(stage, peer, running.port, token)
            row["command"], row["version"] = running.command, peers.version(peer)
            rounds.say(f"  {name}: {row['check']}; {row['suite']}")
            stage.stop(running.process)
            ready.append((name, peer))
        except (Failed, OSError) as error:
            row["failed"] = str(error)
            rounds.say(f"  {name}: FAILED, {error}")

    def one(peer):
        running = peer.start(stage, proxy_cores)
        try:
            return measure.measured(stage, running, token, rounds.seconds())
        finally:
            stage.stop(running.process)

    figures, failed = rounds.in_turn(ready, one)
    for name, row in rows.items():
        row["figures"] = figures.get(name, [])
        row["failed"] = row.get("failed") or failed.get(name, "")
    stage.close()
    return list(rows.values())
