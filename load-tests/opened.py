"""A stage that is set: origin, memcached, and a token cookie that the edge gave to somebody who signed on."""

import machine
import measure
import peers
import rounds
import signon
from stage import HOST, Failed, Stage

# Connections that pause between requests.
PAUSING = 32


def opened(threads=1):
    """The stage, the proxy's cores, and the token."""
    proxy_cores, load_cores = machine.layout(threads)
    missing = peers.EDGE.missing()
    if missing:
        raise SystemExit(f"missing: {missing}; `load-tests/setup` builds it")
    stage = Stage(load_cores)
    stage.start_origin()
    stage.start_memcached()
    edge = peers.start_edge(stage, proxy_cores)
    token = signon.sign_on(stage, f"https://{HOST}:{edge.port}/", peers.USER, peers.PASSWORD)
    stage.stop(edge.process)
    measure.remember_session(stage, token)
    return stage, proxy_cores, token


def half_rate(stage, cores, token):
    """A client that asks half as often as the edge can answer, over kept connections; nobody queues for long."""
    running = peers.start_edge(stage, cores)
    most = measure.measured(stage, running, token, rounds.seconds())["requests_s"]
    stage.stop(running.process)
    pause = f"{2000 * PAUSING / most:.3f}"

    def paused(stage, port, token, seconds):
        return measure.wrk(stage, port, token, seconds, PAUSING, script="latency.lua", arguments=[pause])

    return paused


def checked(stage, cores, token, subjects, check=measure.check):
    """Starts each of (row name, peer, start) once and sees that it does what it is said to do.

    Answers a row for each, and those (row name, start) that can be measured.
    """
    rows, ready = {}, []
    for name, (peer, start) in rounds.chosen(subjects):
        row = rows[name] = {"name": name, "does": peer.does, "figures": [], "missing": peer.missing()}
        if row["missing"]:
            rounds.say(f"  {name}: MISSING, it needs {row['missing']}")
            continue
        try:
            running = start(stage, cores)
            row["check"], row["suite"] = check(stage, peer, running.port, token)
            row["command"], row["version"] = running.command, peers.version(peer)
            rounds.say(f"  {name}: {row['check']}; {row['suite']}")
            stage.stop(running.process)
            ready.append((name, start))
        except (Failed, OSError) as error:
            row["failed"] = str(error)
            rounds.say(f"  {name}: FAILED, {error}")
    return rows, ready


def measured(stage, cores, rows, ready, measurement):
    """Rounds of start, `measurement(name, running)`, stop. Fills the rows, ends the stage and answers the rows."""

    def one(subject):
        name, start = subject
        running = start(stage, cores)
        try:
            return measurement(name, running)
        finally:
            stage.stop(running.process)

    figures, failed = rounds.in_turn([(name, (name, start)) for name, start in ready], one)
    for name, row in rows.items():
        row["figures"] = figures.get(name, [])
        row["failed"] = row.get("failed") or failed.get(name, "")
    stage.close()
    return list(rows.values())
