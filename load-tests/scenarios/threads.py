"""What threads cost: the edge and bare Pingora with one, two and four of them."""

from functools import partial

import measure
import peers
import rounds
from opened import checked, measured, opened
from scenarios.hot_path import COLUMNS

TITLE = "Threads"
TEXT = (
    "The hot path with more threads. With four cores or more, the proxy has one half of them and wrk, origin and memcached "
    "the other; with fewer, all share all of them, with one thread too, so that the rows can be compared."
)


def run():
    stage, cores, token = opened(threads=2)
    subjects = []
    for peer, start in ((peers.EDGE, peers.start_edge), (peers.BARE, peers.start_bare)):
        for threads in (1, 2, 4):
            name = f"{peer.name}, {threads} thread{'s' if threads > 1 else ''}"
            subjects.append((name, (peer, partial(start, threads=threads))))
    rows, ready = checked(stage, cores, token, subjects)
    once = lambda _name, running: measure.measured(stage, running, token, rounds.seconds())
    return measured(stage, cores, rows, ready, once)
