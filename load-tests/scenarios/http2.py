"""The whole hot path over HTTP/2, many requests at once on each connection: the edge and the peers, one at a time."""

import os
import re
import subprocess
from functools import partial

import measure
import peers
import rounds
from opened import checked, measured, opened
from scenarios.hot_path import COLUMNS
from stage import HOST, Failed

TITLE = "The hot path over HTTP/2"
TEXT = (
    "The hot path over HTTP/2: four kept TLS connections with 16 streams each (`h2load -t1 -c4 -m16`), so that as many "
    "requests are under way as in `hot-path`, and what is said there of cores and turns holds here. All ask the application "
    "over HTTP/1.1. Latency is from a request's head to the end of its answer, by h2load's log of each of them. It does not "
    "show what many connections with few requests each cost, which is what browsers have, nor what bodies do."
)
CLIENT = ("h2load", "--version")
NEEDS = ["h2load"]
CONNECTIONS, STREAMS = 4, 16
ANSWER = 128


def h2load(stage, port, fields, options, patience):
    """What h2load says of requests over HTTP/2, and of each of them its status and how many milliseconds it took."""
    log = stage.folder / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", f"--connect-to=127.0.0.1:{port}", f"--log-file={log}", *options]
    for name, value in fields.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        [*command, f"https://{HOST}:{port}/"],
        capture_output=True,
        text=True,
        timeout=patience,
        preexec_fn=lambda: os.sched_setaffinity(0, stage.load_cores),
    )
    spoken = re.search("Application protocol: (.*)", done.stdout)
    if not spoken:
        # As of a socket: whoever has just started is asked again.
        raise ConnectionError(f"h2load: {done.stdout[-200:]}")
    if spoken.group(1) != "h2":
        raise Failed(f"it speaks {spoken.group(1)} and not HTTP/2")
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    return done.stdout, [(int(status), int(took) / 1000) for _, status, took in lines]


def number(pattern, said):
    return float(re.search(pattern, said).group(1))


def ask(stage, port, fields):
    """As measure.ask, over HTTP/2."""
    said, answers = h2load(stage, port, {"User-Agent": "h2load"} | fields, ["-c1", "-n1"], 20)
    suite = " ".join(re.findall("(?:TLS Protocol|Cipher|Application protocol): (.*)", said))
    return answers[0][0] if answers else 0, number(r"\((\d+)\) data", said), suite


def over_http2(stage, port, token, seconds):
    """As measure.wrk. Requests that are under way at the end count neither as good nor as failed."""
    options = [f"-c{CONNECTIONS}", f"-m{STREAMS}", f"-D{seconds}"]
    said, answers = h2load(stage, port, measure.headers(token), options, seconds + 60)
    good = sorted(took for status, took in answers if status == 200)
    if not good or number(r"\((\d+)\) data", said) < ANSWER * len(good):
        raise Failed(f"{len(good)} answers and too few bytes: {said[-600:]}")
    return {
        "requests": len(good),
        "failed": len(answers) - len(good) + number(r"(\d+) errored", said) + number(r"(\d+) timeout", said),
        "seconds": seconds,
        "p50": good[len(good) // 2],
        "p99": good[len(good) * 99 // 100],
    }


def run():
    stage, cores, token = opened()
    subjects = [(peer.name, (peer, peer.start)) for peer in peers.ALL]
    rows, ready = checked(stage, cores, token, subjects, partial(measure.check, ask=ask))
    once = lambda _name, running: measure.measured(stage, running, token, rounds.seconds(), over_http2)
    return measured(stage, cores, rows, ready, once)
