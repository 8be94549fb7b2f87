"""Browsers that sign in at given times, each in a thread of its own and over connections that are kept."""

import http.client
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import signon
from stage import HOST, SENTRY_HOST, Failed

# Longer than the edge lets a login wait.
TIMEOUT_S = 45
DEVICE_COOKIE = "__Host-SSODevice"


@dataclass
class Login:
    """What came of a login: the status of the form's response (0 is none), and milliseconds of that response and of the
    whole way, from the first request to the application's page."""

    status: int = 0
    got_in: bool = False
    form_ms: float = 0.0
    whole_ms: float = 0.0
    error: str = ""


class Browser(signon.Browser):
    """A connection to each host, kept as browsers keep them."""

    def __init__(self, context):
        super().__init__(context)
        self.connections = {}

    def exchange(self, parts, *request):
        connection = self.connections.get(parts.hostname)
        if connection is None:
            connection = signon.Connection(parts.hostname, parts.port, self.context, TIMEOUT_S)
            self.connections[parts.hostname] = connection
        connection.request(*request)
        response = connection.getresponse()
        return response, response.read().decode()

    def close(self):
        for connection in self.connections.values():
            connection.close()
        self.connections = {}

    def sign_in(self, url, name, password):
        """From a page of an application, by the form, to that page. A login that the form refuses is not tried again."""
        login, begun = Login(), time.monotonic()
        steps = signon.way(url, name, password)
        try:
            address, form = next(steps)
            while True:
                sent = time.monotonic()
                response, page = self.open(address, form)
                if form:
                    login.status, login.form_ms = response.status, (time.monotonic() - sent) * 1000
                    if login.status != 303:
                        return login
                address, form = steps.send((response.status, response.headers.get("Location"), page))
        except StopIteration:
            login.whole_ms = (time.monotonic() - begun) * 1000
            login.got_in = signon.TOKEN_COOKIE in self.cookies.get(urlsplit(url).hostname, {})
        except (OSError, http.client.HTTPException, Failed) as error:
            login.error = f"{type(error).__name__}: {error}"
        finally:
            self.close()
        return login

    def guess(self, origin, name, password):
        """Opens the sign-on host's form and sends it with a password that is wrong."""
        login = Login()
        try:
            _, page = self.open(f"{origin}/login")
            sent = time.monotonic()
            response, _ = self.open(f"{origin}/login", signon.form_fields(page) | {"username": name, "password": password})
            login.status, login.form_ms = response.status, (time.monotonic() - sent) * 1000
        except (OSError, http.client.HTTPException) as error:
            login.error = f"{type(error).__name__}: {error}"
        finally:
            self.close()
        return login

    def forget_session(self):
        """All that a browser has lost whose session has ended: what is left says that the device is known."""
        kept = self.cookies.get(SENTRY_HOST, {}).get(DEVICE_COOKIE)
        if not kept:
            raise Failed("the browser has no device cookie after its login")
        self.cookies = {HOST: {}, SENTRY_HOST: {DEVICE_COOKIE: kept}}


def at_times(jobs):
    """Runs each (second, job) in a thread of its own when its time has come. Returns their results, in the order of `jobs`."""
    results, threads, begun = [None] * len(jobs), [], time.monotonic()

    def run(at, job):
        results[at] = job()

    for at, (second, job) in sorted(enumerate(jobs), key=lambda one: one[1][0]):
        time.sleep(max(0.0, begun + second - time.monotonic()))
        thread = threading.Thread(target=run, args=(at, job), daemon=True)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    return results


def percentile(values, share):
    """So many hundredths of the values are below it. 0 where there are none."""
    values = sorted(values)
    return values[min(len(values) - 1, len(values) * share // 100)] if values else 0.0
