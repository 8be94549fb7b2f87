"""What a crowd does to others: the traffic alone, with the crowd at another edge, and with it at the one that is measured.

Whoever plays the crowd shares a core with the traffic's client. Against the first row the third has what that costs too,
and says too much of the edge; against the second it says too little, because there the other edge works on that core as
well. The truth lies between: a bar is met where both ratios meet it, and missed where both miss it.
"""

import os

import peers
from opened import checked, half_rate, measured, opened

ALONE = "alone"
# The kindest to others: they run when nobody else would, as far as the kernel goes.
KIND = 19


def elsewhere(crowd):
    return f"{crowd} at another edge"


def start_other(stage, start):
    """Another edge, with the load: the proxy's core is the measured one's alone."""
    other = start(stage, stage.load_cores)
    for task in os.listdir(f"/proc/{other.process.pid}/task"):
        os.setpriority(os.PRIO_PROCESS, int(task), KIND)
    return other


def run(crowd, start, measurement, prepare=lambda stage: None):
    """Rows of `measurement(stage, running, target, traffic, token)`; `target` is the edge for the crowd, or none."""
    stage, cores, token = opened()
    prepare(stage)
    rows, ready = checked(
        stage, cores, token, [(name, (peers.EDGE, start)) for name in (ALONE, elsewhere(crowd), crowd)]
    )
    traffic = half_rate(stage, cores, token)

    def once(name, running):
        # Beside each of them, so that there is one more in every row, or in none.
        other = start_other(stage, start)
        target = {ALONE: None, crowd: running}.get(name, other)
        try:
            return measurement(stage, running, target, traffic, token)
        finally:
            stage.stop(other.process)

    return measured(stage, cores, rows, ready, once)
