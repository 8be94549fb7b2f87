"""Instructions in user space for each request of a whole proxy, counted by callgrind: no other program blurs them."""

import subprocess

import measure
import peers
import rounds
from opened import checked, measured, opened
from stage import Failed

TITLE = "Instructions"
TEXT = (
    "Instructions that a proxy executes in user space for a request over kept TLS connections, counted under valgrind's "
    "callgrind. What the kernel does for it is not in it, and cryptography is more than it is on the processor itself, some "
    "of whose instructions valgrind hides."
)
COLUMNS = [["instructions", "instructions/request", 0], ["requests", "requests counted", 0]]
CONNECTIONS = 16
NEEDS = ["valgrind", "callgrind_control"]


def under_callgrind(start):
    """Starts a proxy with callgrind around it."""

    def wrapped(stage, cores):
        plain = stage.start

        def with_valgrind(name, command, *rest):
            out = stage.folder / "callgrind.out"
            return plain(name, ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *command], *rest)

        stage.start = with_valgrind
        try:
            return start(stage, cores)
        finally:
            stage.start = plain

    return wrapped


def control(running, what):
    done = subprocess.run(["callgrind_control", what, str(running.process.pid)], capture_output=True, text=True, timeout=60)
    if "OK" not in done.stdout:
        raise Failed(f"callgrind_control: {done.stdout}{done.stderr}")


def count(stage, running, token):
    measure.wait(stage, running.port, token)
    # What is done once is done before the count begins.
    measure.wrk(stage, running.port, token, 3, CONNECTIONS)
    control(running, "-z")
    figures = measure.wrk(stage, running.port, token, rounds.seconds(), CONNECTIONS)
    control(running, "-d")
    if figures["failed"]:
        raise Failed(f"{figures['failed']:.0f} requests failed")
    totals = 0
    for path in stage.folder.glob("callgrind.out.*"):
        text = path.read_text()
        totals += int(text.rsplit("\ntotals: ", 1)[1].split()[0]) if "\ntotals: " in text else 0
        path.unlink()
    return {"instructions": totals / figures["requests"], "requests": figures["requests"]}


def run():
    stage, cores, token = opened()
    subjects = [(peer.name, (peer, under_callgrind(peer.start))) for peer in (peers.EDGE, peers.BARE)]
    rows, ready = checked(stage, cores, token, subjects)
    return measured(stage, cores, rows, ready, lambda _name, running: count(stage, running, token))
