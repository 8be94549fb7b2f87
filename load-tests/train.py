"""Puts an instrumented build through what an edge does all day, so that its profile says which paths are hot: `pgo` calls it.

    python3 load-tests/train.py PROGRAM

Most of it is the hot path; handshakes, sign-ons, strangers and HTTP/2 have their share, so that nothing that matters counts as cold.
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import machine
import measure
import peers
import signon
from stage import HOST, Failed, Stage

SECONDS = 20
SIGN_ONS = 20
HTTP2_REQUESTS = 3000


def over_http2(stage, port, token):
    """Requests over one HTTP/2 connection."""
    fields = [part for name, value in measure.headers(token).items() for part in ("-H", f"{name}: {value}")]
    command = ["curl", "-sS", "--http2", "--cacert", stage.folder / "cert.pem", "--resolve", f"{HOST}:{port}:127.0.0.1"]
    command += fields + ["-o", "/dev/null", f"https://{HOST}:{port}/[1-{HTTP2_REQUESTS}]"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=180)
    if done.returncode:
        raise Failed(f"curl over HTTP/2: {done.stderr[-300:]}")


def train(program):
    proxy_cores, load_cores = machine.layout(1)
    peers.binary = lambda name: Path(program)
    stage = Stage(load_cores)
    stage.start_origin()
    stage.start_memcached()
    edge = peers.start_edge(stage, proxy_cores)
    url = f"https://{HOST}:{edge.port}/"
    # Argon2 asks for much time without the optimiser, so these are few.
    token = [signon.sign_on(stage, url, peers.USER, peers.PASSWORD) for _ in range(SIGN_ONS)][-1]
    measure.wait(stage, edge.port, token)
    for connections in (64, 16, 256):
        measure.wrk(stage, edge.port, token, SECONDS, connections)
    over_http2(stage, edge.port, token)
    for _ in range(100):
        measure.ask(stage, edge.port, measure.headers(token))
        measure.ask(stage, edge.port, {})
    # Ended properly: the profile is written at the end.
    stage.stop(edge.process)
    stage.close()


if __name__ == "__main__":
    train(sys.argv[1])
