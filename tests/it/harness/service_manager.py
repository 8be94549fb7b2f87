# A service manager as systemd is one: it binds sockets, keeps them, and passes them to the service that it starts
# (sd_listen_fds(3)).
#
#   service_manager.py ADDRESS… -- PROGRAM ARGUMENT…
#
# ADDRESS is IP:PORT, udp:IP:PORT or a path. It prints the address of each socket, and then does what standard input says,
# line by line: `start`, `stop` (SIGTERM), `restart`. At the end of standard input it ends with its service.

import os
import signal
import socket
import sys

FIRST = 3
names = os.environ.get("NAMES")
separator = sys.argv.index("--")
program = sys.argv[separator + 1:]


def bind(address):
    if "/" in address:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound.bind(address)
    else:
        kind, address = (socket.SOCK_DGRAM, address[4:]) if address.startswith("udp:") else (socket.SOCK_STREAM, address)
        host, port = address.rsplit(":", 1)
        family = socket.AF_INET6 if "[" in host else socket.AF_INET
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host.strip("[]"), int(port)))
    if bound.type == socket.SOCK_STREAM:
        bound.listen(4096)
    return bound


sockets = [bind(address) for address in sys.argv[1:separator]]
for bound in sockets:
    name = bound.getsockname()
    print(name if isinstance(name, str) else f"{name[0]}:{name[1]}", flush=True)


def start():
    child = os.fork()
    if child:
        return child
    # Out of the way first, as one of them may have the number that another is to have.
    high = [os.dup2(bound.fileno(), 100 + at) for at, bound in enumerate(sockets)]
    for at, number in enumerate(high):
        os.dup2(number, FIRST + at, inheritable=True)
    os.closerange(FIRST + len(sockets), 256)
    environment = dict(os.environ, LISTEN_PID=os.environ.get("PID") or str(os.getpid()), LISTEN_FDS=str(len(sockets)))
    if names is not None:
        environment["LISTEN_FDNAMES"] = names
    os.execve(program[0], program, environment)


def stop(child, how=signal.SIGTERM):
    os.kill(child, how)
    _, status = os.waitpid(child, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)


child = None
for line in sys.stdin:
    order = line.strip()
    if order in ("stop", "restart"):
        stop(child)
        child = None
    if order in ("start", "restart"):
        child = start()
        print("started", child, flush=True)
    if order == "wait":
        _, status = os.waitpid(child, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)
        child = None
if child:
    stop(child, signal.SIGKILL)
