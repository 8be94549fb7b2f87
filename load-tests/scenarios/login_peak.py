"""A peak of logins behind one address, amid wrong passwords; and a known device amid guesses at its account."""

import json
import os
import subprocess
import time
from collections import Counter

import browsers
import machine
import peers
import rounds
import signon
from opened import checked, measured, opened
from stage import HOST, SENTRY_HOST, Failed

TITLE = "A peak of logins"
TEXT = (
    "300 users, imported by the command line, sign in with their right passwords from devices that are not known, behind one "
    "address, from which 200 wrong passwords come meanwhile: a third for accounts of those users, a third for one other "
    "account, a third for names that no user has. Once they come within a minute, evenly, once all within a second. Then "
    "1,000 devices that are not known send a wrong password each for one account, from that same address and within 30 s, "
    "while a device that has signed in to it before signs in there every 3 s, and once more after them. Limits, line and the "
    "one login worker are the defaults; the edge has one core, counters and sessions are in a memcached of their own for "
    "each row and round. Each browser opens the application's page, follows the redirects, gets the form, sends it with its "
    "hidden fields and follows the redirects back, over connections that it keeps; a form that is refused is not sent "
    "again. Times are of whole sign-ons, from the first request to the application's page; the last "
    "column is of the form alone. The browsers are Python threads on a core with memcached and the application, so that the "
    "second row says too much of the edge."
)
COLUMNS = [
    ["p99_ms", "p99 ms", 0],
    ["p50_ms", "p50 ms", 0],
    ["right", "right logins", 0],
    ["kept_out", "of them kept out", 0],
    ["wrong_401", "wrong: 401", 0],
    ["wrong_429", "wrong: 429", 0],
    ["wrong_503", "wrong: 503", 0],
    ["wrong_other", "wrong: other", 0],
    ["took_s", "took s", 1],
    ["busy", "core busy", 2],
    ["form_p99_ms", "p99 of the form, ms", 0],
]
CLIENT = ("python3", "--version")
WRONG = "never the right one"
# The other scenarios' limits, which this one is about.
LIMITS = "  login: {failures_per_account: 1000000 per 15m, failures_per_address: 1000000 per 15m}\n"
# Of the second part: in how many seconds the guesses come, and the known device's logins.
GUESSES_S, KNOWN_EVERY_S = 30, 3


def people():
    """`PEOPLE=`; two wrong passwords come with every three of them."""
    return rounds.setting("PEOPLE", 300)


def guesses():
    """`GUESSES=`"""
    return rounds.setting("GUESSES", 1_000)


def within_s():
    """`WITHIN=`, of the first row."""
    return rounds.setting("WITHIN", 60)


def user(number):
    return f"person{number}"


def import_users(stage):
    """By the command line, as an operator does it: each password is hashed as it will be checked."""
    grants = {"services": ["iqueue"], "roles": ["clerk"], "password": peers.PASSWORD}
    lines = [json.dumps({"name": user(number), **grants}) for number in range(people())]
    path = stage.write("users.jsonl", "\n".join(lines) + "\n")
    command = [peers.binary("sentry-edge"), "user", "import", "-c", stage.folder / "edge.yaml", path]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600)
    if done.returncode or f"{people()} users imported" not in done.stdout:
        raise Failed(f"user import: {done.stdout}{done.stderr}")


def start(stage, cores):
    """With an empty store: failures are counted for a quarter of an hour."""

    def with_defaults(_, text):
        if LIMITS not in text:
            raise Failed("the configuration has no login limits to be left out")
        return text.replace(LIMITS, "")

    stage.restart_memcached()
    return peers.start_edge(stage, cores, limits="", more=with_defaults)


def check(stage, peer, port, _token):
    signon.sign_on(stage, f"https://{HOST}:{port}/", peers.USER, peers.PASSWORD)
    return "a browser signs on and gets its page", ""


def wrong_names():
    """Every third is for an account of the users, which then has one failure; for one account; for nobody's."""
    for number in range(people() * 2 // 3):
        yield (user(number), peers.USER, f"nobody{number}")[number % 3]


def evenly(jobs, seconds):
    return [(at * seconds / len(jobs), job) for at, job in enumerate(jobs)]


def peak(stage, port, seconds):
    """Right logins and wrong ones, both evenly over so many seconds."""
    page, form = f"https://{HOST}:{port}/peak", f"https://{SENTRY_HOST}:{port}"
    context = signon.tls_context(stage)
    sign_in = lambda name: lambda: browsers.Browser(context).sign_in(page, name, peers.PASSWORD)
    guess = lambda name: lambda: browsers.Browser(context).guess(form, name, WRONG)
    right = [sign_in(user(number)) for number in range(people())]
    wrong = [guess(name) for name in wrong_names()]
    logins = browsers.at_times(evenly(right, seconds) + evenly(wrong, seconds))
    return logins[: len(right)], logins[len(right) :]


def known_device(stage, port, seconds):
    """A device that is known to the account, while others guess at it and when they have."""
    url, form = f"https://{HOST}:{port}", f"https://{SENTRY_HOST}:{port}"
    context = signon.tls_context(stage)
    known = browsers.Browser(context)
    if not known.sign_in(f"{url}/known", peers.USER, peers.PASSWORD).got_in:
        raise Failed("the device that is to be known could not sign in")

    def sign_in(turn):
        known.forget_session()
        # Another page each time: a session that asks for tickets to the same one over and over is taken for a loop.
        return known.sign_in(f"{url}/known/{turn}", peers.USER, peers.PASSWORD)

    def sign_in_now_and_then():
        begun, logins = time.monotonic(), []
        for turn in range(max(1, seconds // KNOWN_EVERY_S)):
            time.sleep(max(0.0, begun + turn * KNOWN_EVERY_S - time.monotonic()))
            logins.append(sign_in(turn))
        return logins

    guess = lambda: browsers.Browser(context).guess(form, peers.USER, WRONG)
    begun = [(0.0, sign_in_now_and_then)]
    logins, *wrong = browsers.at_times(begun + evenly([guess] * guesses(), seconds))
    return [*logins, sign_in("after")], wrong


def measurement(stage, running, load, seconds):
    begun, cpu = time.monotonic(), machine.cpu_seconds(running.process.pid)
    right, wrong = load(stage, running.port, seconds)
    took, cpu = time.monotonic() - begun, machine.cpu_seconds(running.process.pid) - cpu
    for login in (*right, *wrong):
        if login.error:
            rounds.say(f"  {login.error}")
    statuses = Counter(login.status for login in wrong)
    whole, kept_out = [login.whole_ms for login in right if login.got_in], Counter()
    kept_out.update(login.status for login in right if not login.got_in)
    if kept_out:
        rounds.say(f"  kept out, by the status of the form: {dict(kept_out)}")
    known = {f"wrong_{status}": statuses.pop(status, 0) for status in (401, 429, 503)}
    return {
        "p99_ms": browsers.percentile(whole, 99),
        "p50_ms": browsers.percentile(whole, 50),
        "right": len(right),
        "kept_out": kept_out.total(),
        **known,
        "wrong_other": statuses.total(),
        "took_s": took,
        "busy": cpu / took,
        "form_p99_ms": browsers.percentile([login.form_ms for login in right], 99),
    }


def run():
    stage, cores, _ = opened()
    os.sched_setaffinity(0, stage.load_cores)
    import_users(stage)
    rows = {
        f"{people():,} logins within {within_s()} s": (peak, within_s()),
        f"{people():,} logins at once": (peak, 1),
        f"a known device amid {guesses():,} guesses": (known_device, GUESSES_S),
    }
    subjects = [(name, (peers.EDGE, start)) for name in rows]
    checked_rows, ready = checked(stage, cores, "", subjects, check)
    return measured(stage, cores, checked_rows, ready, lambda name, running: measurement(stage, running, *rows[name]))
