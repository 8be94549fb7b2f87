"""What the access log costs: a JSON line for each request, into a file. Metrics cannot be turned off and are on in both."""

from functools import partial

import measure
import peers
import rounds
from opened import checked, measured, opened
from scenarios.hot_path import COLUMNS

TITLE = "The access log"
TEXT = "The hot path with the access log off and with it in a file. Metrics are always on."


def start_with_log(stage, cores):
    return peers.start_edge(stage, cores, access=f"{{format: json, path: {stage.folder}/access.log}}")


def run():
    stage, cores, token = opened()
    subjects = [
        ("access log off", (peers.EDGE, partial(peers.start_edge, threads=1))),
        ("access log on", (peers.EDGE, start_with_log)),
    ]
    rows, ready = checked(stage, cores, token, subjects)

    def once(_name, running):
        figures = measure.measured(stage, running, token, rounds.seconds())
        # So that a disk that is filled by one round is not the next one's.
        (stage.folder / "access.log").unlink(missing_ok=True)
        return figures

    return measured(stage, cores, rows, ready, once)
