"""Signs on as a browser does: follows the redirects, sends the form, and brings back the service's token cookie."""

import base64
import html
import http.client
import json
import re
import ssl
from urllib.parse import urlencode, urlsplit

from stage import Failed

TOKEN_COOKIE = "__Host-JWTCookie"
# What every request of every measurement says, because a session belongs to the browser that began it.
USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36"
MOST_STEPS = 12


def tls_context(stage):
    return ssl.create_default_context(cafile=stage.folder / "cert.pem")


class Connection(http.client.HTTPSConnection):
    """Speaks to this machine whatever the name: browsers resolve `.localhost` themselves, Python does not."""

    def __init__(self, name, port, context, timeout=10):
        super().__init__(name, port, timeout=timeout, context=context)
        self.name = name

    def connect(self):
        self.sock = self._create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self.name)


class Browser:
    def __init__(self, context):
        self.context = context
        self.cookies = {}

    def open(self, url, form=None):
        """One request, without following where it leads."""
        parts = urlsplit(url)
        headers = {"User-Agent": USER_AGENT, "Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
        headers |= {"Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin" if form else "none"}
        jar = self.cookies.setdefault(parts.hostname, {})
        if jar:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        body = None
        if form is not None:
            body = urlencode(form)
            headers |= {"Content-Type": "application/x-www-form-urlencoded"}
            headers["Origin"] = f"{parts.scheme}://{parts.netloc}"
        target = f"{parts.path or '/'}?{parts.query}".rstrip("?")
        response, text = self.exchange(parts, "POST" if form else "GET", target, body, headers)
        for cookie in response.headers.get_all("Set-Cookie") or []:
            name, value = cookie.split(";")[0].split("=", 1)
            if "Max-Age=0" in cookie:
                jar.pop(name, None)
            else:
                jar[name] = value
        return response, text

    def exchange(self, parts, *request):
        """On a connection of its own."""
        connection = Connection(parts.hostname, parts.port, self.context)
        try:
            connection.request(*request)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()


def form_fields(page):
    inputs = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page)
    return {name: html.unescape(value) for name, value in inputs}


def way(url, name, password):
    """Where a browser goes from `url` until it sees a page: gives URL and form, is sent status, Location and page."""
    form = None
    for _ in range(MOST_STEPS):
        status, location, page = yield url, form
        form = None
        if location:
            parts = urlsplit(url)
            url = location if "://" in location else f"{parts.scheme}://{parts.netloc}{location}"
        elif 'name="password"' in page:
            form = form_fields(page) | {"username": name, "password": password}
            url = url.split("?")[0]
        elif status == 200:
            return
        else:
            break
    raise Failed(f"could not sign on: {status} at {url}")


def sign_on(stage, url, name, password):
    """The token cookie of the host of `url`."""
    browser, steps = Browser(tls_context(stage)), way(url, name, password)
    try:
        step = next(steps)
        while True:
            response, page = browser.open(*step)
            step = steps.send((response.status, response.headers.get("Location"), page))
    except StopIteration:
        token = browser.cookies[urlsplit(url).hostname].get(TOKEN_COOKIE)
        if not token:
            raise Failed(f"no token cookie from {url}") from None
        return token


def claims(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
