"""The stage: a folder, a certificate, the origin, memcached, and every process that is started, ended when we end."""

import atexit
import ctypes
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECRET = "0123456789abcdef0123456789abcdef"
HOST = "localhost"
SENTRY_HOST = "sentry.localhost"
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """Something could not be started or did not do what it should."""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def fill(template, **values):
    """A configuration: a file of ours with `@NAME@` replaced."""
    text = (HERE / "peers" / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name.upper()}@", str(value))
    return text


class Stage:
    def __init__(self, load_cores):
        self.folder = Path(tempfile.mkdtemp(prefix="sentry-edge-load-"))
        self.folder.chmod(0o755)
        self.load_cores = load_cores
        self.running = []
        self.origin_port, self.auth_port, self.memcached_port = free_port(), free_port(), free_port()
        self.application_port = free_port()
        atexit.register(self.close)
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(name, lambda *_: exit(1))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.make_certificate()

    def make_certificate(self):
        """One certificate for all, ECDSA on P-256."""
        names = f"subjectAltName=DNS:{HOST},DNS:{SENTRY_HOST}"
        # Not an authority's: some clients take that for no server.
        request = f"[req]\ndistinguished_name=name\nx509_extensions=more\n[name]\n"
        request += f"[more]\n{names}\nbasicConstraints=CA:FALSE\n"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "7", "-subj", f"/CN={HOST}", "-config", self.write("certificate.conf", request)]
        command += ["-keyout", self.folder / "key.pem", "-out", self.folder / "cert.pem"]
        subprocess.run(command, check=True, capture_output=True)
        both = self.read("cert.pem") + self.read("key.pem")
        self.write("both.pem", both)

    def read(self, name):
        return (self.folder / name).read_text()

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def configure(self, template, **values):
        """Writes a peer's configuration, with what all of them need filled in."""
        text = fill(
            template,
            folder=self.folder,
            cert=self.folder / "cert.pem",
            key=self.folder / "key.pem",
            both=self.folder / "both.pem",
            origin=self.origin_port,
            auth=self.auth_port,
            memcached=self.memcached_port,
            secret=SECRET,
            host=HOST,
            sentry=SENTRY_HOST,
            lua=HERE / "peers",
            **values,
        )
        return self.write(template, text)

    def start(self, name, command, cores, port, env=None):
        """Starts a process on some cores, in a group of its own, and waits until it listens."""
        command = [str(part) for part in command]
        log = open(self.folder / f"{name}.log", "wb")
        libc = ctypes.CDLL(None)

        def before():
            os.sched_setaffinity(0, cores)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            preexec_fn=before,
            start_new_session=True,
        )
        self.running.append(process)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            time.sleep(0.05)
        self.stop(process)
        raise Failed(f"{name} did not start: {self.read(f'{name}.log')[-600:]}")

    def stop(self, process):
        """Ends what we started, and nobody else."""
        if process not in self.running:
            return
        self.running.remove(process)
        for signal_number, patience in ((signal.SIGINT, 3), (signal.SIGTERM, 3), (signal.SIGKILL, 5)):
            if process.poll() is not None:
                break
            try:
                os.killpg(process.pid, signal_number)
                process.wait(patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def start_origin(self):
        """nginx, which answers every request with 128 bytes, and beside it the authentication service that does nothing."""
        config = self.configure("origin.conf")
        command = ["nginx", "-p", self.folder, "-c", config]
        return self.start("origin", command, self.load_cores, self.origin_port)

    def start_application(self, port=None, late_s=None):
        """Another application, for what nginx does not do: it is late, takes long bodies and talks over WebSockets."""
        port = port or self.application_port
        command = [sys.executable, HERE / "application.py", port] + ([late_s] if late_s else [])
        return self.start(f"application-{port}", command, self.load_cores, port)

    def start_memcached(self):
        command = ["memcached", "-l", "127.0.0.1", "-p", self.memcached_port, "-t", "1", "-m", "1024", "-c", "4096"]
        command += ["-u", "root"] if os.geteuid() == 0 else []
        self.memcached = self.start("memcached", command, self.load_cores, self.memcached_port)
        return self.memcached

    def restart_memcached(self):
        """An empty one at the same place."""
        self.stop(self.memcached)
        return self.start_memcached()

    def close(self):
        for process in reversed(self.running[:]):
            self.stop(process)
        shutil.rmtree(self.folder, ignore_errors=True)
