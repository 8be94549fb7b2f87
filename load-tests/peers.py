"""The proxies that are measured: what each does for a request, what it needs, how it is started and asked its version."""

import base64
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import machine
from stage import SECRET, Failed, free_port

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "target" / "load-tests" / "peers" / "bin"
USER, PASSWORD = "ada", "correct horse battery staple"
# Go's runtimes are told that they have one core, as the others are by their configuration or command line.
ONE_CORE = {"GOMAXPROCS": "1"}


@dataclass
class Peer:
    name: str
    does: str
    # Whether a request without a cookie is to be refused.
    checks: bool
    needs: list
    start: object
    version: tuple

    def missing(self):
        """What it needs and what is not there, or nothing."""
        absent = [str(need) for need in self.needs if not (shutil.which(need) or Path(need).exists())]
        return ", ".join(absent).replace(f"{ROOT}/", "")


@dataclass
class Running:
    process: object
    port: int
    command: str
    # The edge's alone: where its metrics are.
    admin: int = 0


def binary(name):
    """What the build left, by the profile that is measured."""
    profile = os.environ.get("PROFILE") or "release"
    return ROOT / "target" / profile / name


def helper(name):
    """The newest build of a program that is declared as a bench; cargo puts a hash into its name."""
    built = [path for path in binary("deps").glob(f"{name}-*") if not path.suffix and os.access(path, os.X_OK)]
    return max(built, key=lambda path: path.stat().st_mtime, default=binary("deps") / name)


def run(stage, name, command, cores, port, env=None):
    process = stage.start(name, command, cores, port, env)
    # Without the way to folders that are gone, or elsewhere, when somebody reads it.
    shown = " ".join(str(part) for part in command)
    for way in (f"{stage.folder}/", f"{ROOT}/"):
        shown = shown.replace(way, "")
    shown = shown.replace(str(stage.folder), ".")
    return Running(process, port, shown)


def start_edge(
    stage,
    cores,
    threads=1,
    access="{format: off}",
    limits="connections_per_address: 20000",
    patience="",
    more=None,
    env=None,
):
    """`more(stage, text)` may change the configuration's text."""
    port, admin = free_port(), free_port()
    values = {"threads": threads, "access": access, "limits": limits, "patience": patience}
    config = stage.configure("edge.yaml", port=port, admin=admin, **values)
    if more:
        config.write_text(more(stage, config.read_text()))
    if not (stage.folder / "users.db").exists():
        add = [binary("sentry-edge"), "user", "add", "-c", config, USER, "--service", "iqueue", "--role", "clerk"]
        add += ["--email", "ada@example.com", "--password-stdin"]
        done = subprocess.run(add, input=f"{PASSWORD}\n", text=True, capture_output=True)
        if done.returncode:
            raise Failed(f"user add: {done.stderr}")
    running = run(stage, "edge", [binary("sentry-edge"), "run", "-c", config], cores, port, env)
    running.admin = admin
    return running


def start_bare(stage, cores, threads=1):
    port = free_port()
    command = [helper("bare"), f"127.0.0.1:{port}", stage.folder / "cert.pem", stage.folder / "key.pem"]
    return run(stage, "bare", command + [f"127.0.0.1:{stage.origin_port}", threads], cores, port)


def nginx(template):
    def start(stage, cores):
        port = free_port()
        stage.configure("nginx-head.conf")
        config = stage.configure(template, port=port)
        return run(stage, "nginx", ["nginx", "-p", stage.folder, "-c", config], cores, port)

    return start


def haproxy(template):
    def start(stage, cores):
        port = free_port()
        config = stage.configure(template, port=port)
        return run(stage, "haproxy", ["haproxy", "-db", "-f", config], cores, port)

    return start


def start_envoy(stage, cores):
    port = free_port()
    secret = base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("=")
    config = stage.configure("envoy-jwt.yaml", port=port, secret64=secret)
    command = [TOOLS / "envoy", "-c", config, "--concurrency", "1", "--log-level", "error"]
    return run(stage, "envoy", command + ["--disable-hot-restart"], cores, port)


def start_traefik(stage, cores):
    port = free_port()
    stage.configure("traefik-routes.yaml")
    config = stage.configure("traefik.yaml", port=port)
    return run(stage, "traefik", [TOOLS / "traefik", f"--configFile={config}"], cores, port, ONE_CORE)


def start_caddy(stage, cores):
    port = free_port()
    config = stage.configure("Caddyfile", port=port)
    command = [TOOLS / "caddy", "run", "--config", config, "--adapter", "caddyfile"]
    return run(stage, "caddy", command, cores, port, ONE_CORE | {"HOME": str(stage.folder)})


LUA = ["/usr/lib/nginx/modules/ngx_http_lua_module.so", "/usr/share/lua/5.1/resty/core.lua"]
LUA += ["/usr/lib/x86_64-linux-gnu/lua/5.1/cjson.so"] if os.uname().machine == "x86_64" else []
NGINX, HAPROXY = ("nginx", "-v"), ("haproxy", "-v")

EDGE = Peer(
    "sentry-edge",
    "token, session checked and touched in memcached, identity headers, metrics",
    True,
    [binary("sentry-edge")],
    start_edge,
    (str(binary("sentry-edge")), "--version"),
)
BARE = Peer("bare Pingora", "proxies only", False, [helper("bare")], start_bare, ())
NGINX_ALONE = Peer("nginx", "proxies only", False, ["nginx"], nginx("nginx.conf"), NGINX)
HAPROXY_ALONE = Peer("HAProxy", "proxies only", False, ["haproxy"], haproxy("haproxy.cfg"), HAPROXY)
OTHERS = [
    Peer("HAProxy jwt_verify", "token, no session", True, ["haproxy"], haproxy("haproxy-jwt.cfg"), HAPROXY),
    Peer(
        "Envoy jwt_authn",
        "token (verified ones are remembered), no session",
        True,
        [TOOLS / "envoy"],
        start_envoy,
        (str(TOOLS / "envoy"), "--version"),
    ),
    Peer(
        "nginx auth_request",
        "asks a service that looks for a cookie; its own cost is not counted",
        True,
        ["nginx"],
        nginx("nginx-auth-request.conf"),
        NGINX,
    ),
    Peer(
        "nginx + Lua + memcached",
        "token, session checked and touched in memcached, identity headers",
        True,
        ["nginx", *LUA],
        nginx("nginx-lua.conf"),
        NGINX,
    ),
    Peer(
        "Traefik forwardAuth",
        "asks a service that looks for a cookie; its own cost is not counted",
        True,
        [TOOLS / "traefik"],
        start_traefik,
        (str(TOOLS / "traefik"), "version"),
    ),
    Peer(
        "Caddy forward_auth",
        "asks a service that looks for a cookie; its own cost is not counted",
        True,
        [TOOLS / "caddy"],
        start_caddy,
        (str(TOOLS / "caddy"), "version"),
    ),
]
ALL = [EDGE, BARE, NGINX_ALONE, HAPROXY_ALONE, *OTHERS]


def behind(start, port):
    """Starts a proxy in front of another application."""

    def started(stage, cores):
        stage.origin_port = port
        return start(stage, cores)

    return started


def version(peer):
    if peer is BARE:
        lock = (ROOT / "Cargo.lock").read_text()
        return "pingora-proxy " + lock.split('name = "pingora-proxy"\nversion = "')[1].split('"')[0]
    return machine.version(*peer.version).replace(f"{TOOLS}/", "")
