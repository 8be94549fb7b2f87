"""One browser that does everything right, at two edges that disagree, or before an application that adds a parameter.

Every request may reach the worst of the two edges. The longest chain of redirects before a page is looked for, over all
choices; where the chain comes back to a state that it has been in, it has no end. Browsers give up at 20 redirects.
"""

from dataclasses import dataclass, replace
from typing import Callable, Optional

ENDLESS = float("inf")
MOST_REDIRECTS = 12


@dataclass(frozen=True)
class Rules:
    login_page: bool  # /login never redirects back (5)
    rounds: Optional[int]  # of one flow, counted in its own sealed state (5); None: redirects are counted per browser
    clears: bool  # a cookie that this edge refuses is cleared, though another edge would take it (6 forbids it)
    strip: bool  # what looks like a ticket is taken out of a navigation though no state cookie waits for it
    marked: bool  # only what bears the mark of a ticket is one (4)


FIRST_EDITION = Rules(login_page=False, rounds=None, clears=True, strip=False, marked=False)
DRAFT = Rules(login_page=False, rounds=6, clears=False, strip=True, marked=False)
SECOND_EDITION = Rules(login_page=True, rounds=3, clears=False, strip=True, marked=True)

# Of the first edition, for a browser, a page and a minute.
MOST_STARTS, MOST_TICKETS = 6, 6


@dataclass(frozen=True)
class World:
    """What the edges and the browser make of cookies. `maker` is the edge that signed a token."""

    name: str
    takes_sign_on: Callable = lambda edge, maker: True
    takes_service: Callable = lambda edge, maker: True
    redeems: Callable = lambda edge, maker: True
    keeps_state_cookie: bool = True
    keeps_service_cookie: bool = True
    application_adds: bool = False


def own(edge, maker):
    return edge == maker or edge == "A"


WORLDS = (
    World("nothing differs"),
    World("B does not know A's key, or its clock is behind", takes_sign_on=own, takes_service=own, redeems=own),
    World("A knows of a revocation that B has not read", takes_sign_on=lambda edge, _: edge == "B", takes_service=lambda edge, _: edge == "B"),
    World("services refuse what the sign-on host takes (lost, too large, another audience)", takes_service=lambda *_: False),
    World("the service's cookie is never kept", keeps_service_cookie=False),
    World("the state cookie is never kept", keeps_state_cookie=False),
    World("no cookie of the service is kept", keeps_service_cookie=False, keeps_state_cookie=False),
    World("the application adds a UUID of its own under our parameter", application_adds=True),
)


@dataclass(frozen=True)
class Browser:
    at: str  # "service" | "/copyCookie" | "/login"
    parameter: Optional[str] = None  # a ticket's maker, or "application"
    cookie: Optional[str] = None  # the maker of the service's token
    state_cookie: bool = False
    starts: int = 0
    tickets: int = 0
    rounds: int = 1


def hop(rules, world, browser, edge):
    """A page, or the next request with what led to it."""
    good = browser.cookie is not None and world.takes_service(edge, browser.cookie)

    def start(browser):
        starts = browser.starts + 1 if browser.state_cookie else 1
        if rules.rounds is None and starts > MOST_STARTS:
            return "the page about redirects", None
        if rules.rounds is not None and browser.rounds > rules.rounds:
            return "the page about redirects", None
        kept = None if rules.clears and browser.cookie else browser.cookie
        following = replace(browser, at="/copyCookie", parameter=None, cookie=kept, state_cookie=world.keeps_state_cookie,
                            starts=starts if rules.rounds is None else 0)
        return following, f"service@{edge}: start"

    def again(browser):
        return start(replace(browser, rounds=browser.rounds + 1))

    if browser.at == "service":
        if browser.parameter == "application":
            if not rules.marked and (rules.strip or browser.state_cookie):
                return replace(browser, parameter=None), f"service@{edge}: the application's parameter is taken out"
            return (f"served by {edge}", None) if good else again(browser)
        if browser.parameter is not None:
            if browser.state_cookie and world.redeems(edge, browser.parameter):
                kept = edge if world.keeps_service_cookie else None
                return replace(browser, parameter=None, cookie=kept, state_cookie=False, starts=0), f"service@{edge}: redeemed"
            if good:
                return replace(browser, parameter=None), f"service@{edge}: not redeemed, the cookie is good"
            if not browser.state_cookie and not rules.strip:
                return start(replace(browser, parameter=None))
            return again(browser)
        if good and world.application_adds:
            return replace(browser, parameter="application"), "the application adds its own requestID=<uuid>"
        if good:
            return f"served by {edge}", None
        # A start after a ticket of this flow is another round of it.
        return again(browser) if browser.tickets and rules.rounds is not None else start(browser)
    if browser.at == "/copyCookie":
        if not world.takes_sign_on(edge, "A"):
            return replace(browser, at="/login"), f"/copyCookie@{edge}: no good session"
        if rules.rounds is None and browser.tickets >= MOST_TICKETS:
            return "the page about redirects", None
        # Counted up to what any rule looks at, so that an endless chain is a cycle.
        tickets = browser.tickets + 1 if rules.rounds is None else 1
        return replace(browser, at="service", parameter="A", tickets=tickets), f"/copyCookie@{edge}: ticket"
    if world.takes_sign_on(edge, "A") and not rules.login_page:
        return replace(browser, at="/copyCookie"), f"/login@{edge}: signed in"
    return "form, or 'you are signed in'", None


def longest(rules, world):
    """The number of redirects of the longest chain, and the chain."""
    known, under_way = {}, set()

    def chain(browser):
        if browser in under_way:
            return ENDLESS, ()
        if browser not in known:
            under_way.add(browser)
            chains = []
            for edge in "AB":
                following, what = hop(rules, world, browser, edge)
                if what is None:
                    chains.append((0, (f"{edge}: {following}",)))
                    continue
                redirects, rest = chain(following)
                # /noCookie is a redirect of its own.
                chains.append((redirects + (2 if what.endswith("start") else 1), (what,) + rest))
            under_way.discard(browser)
            known[browser] = max(chains, key=lambda found: found[0])
        return known[browser]

    return chain(Browser("service"))


def rounds(rules, most_redirects=MOST_REDIRECTS):
    """Prints the longest chain of each world. Answers the worlds whose chain is too long."""
    too_long = []
    for world in WORLDS:
        redirects, steps = longest(rules, world)
        is_long = redirects > most_redirects
        words = "no end" if redirects == ENDLESS else f"{redirects} redirects at most"
        print(f"  {world.name:80} {words}{'  TOO LONG: ' + '; '.join(steps[:8]) if is_long else ''}")
        too_long += [world.name] if is_long else []
    return too_long
