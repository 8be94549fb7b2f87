"""An explicit-state model of the sign-on: what is between browser, edges and stores, as `design` decides it.

    python3 tests/model            everything, within five minutes; exit status 1 when a run is not as it should be
    python3 tests/model browser    or `stores`, or `rounds`: these alone

`browser.py` has one browser with its tabs, the people before it and an attacker; `stores.py` one session in the servers
that keep it, and edges that reach them or do not; `rounds.py` the redirects between edges that disagree. Each explores
all states within the bounds that a run names, breadth first, so a violation comes with a shortest trace.

Every rule can be left out. The runs of the rules as they are must find no violation, and the runs of the first edition, or
of a rule left out, must find theirs: that is the check that the model can fail. Not modelled are fingerprints, bearer
tokens, streams, three or more copies, and real time beyond "may have expired by now".

The invariants: I1 who typed the password last is who is served. I2 a ticket is redeemed once. I3 nobody is served after a
logout that was told as done. I4 an attacker's link opens nothing for him, and makes nobody the attacker. I5 redirects end.
I6 one person with several tabs meets no error, no second form, no refused save. I7 an edge that reaches a server which
knows of a session's end accepts it no more.
"""

import sys
from dataclasses import replace

import browser as people
import rounds as redirects
from browser import FIRST_EDITION, SECOND_EDITION, browser
from stores import stores

def without(*names):
    return replace(SECOND_EDITION, **{name: False for name in names})


# Name, rules, bounds, and the violations that must be found, by the beginning of their names.
BROWSER_RUNS = [
    ("first edition: two people, replies at once", FIRST_EDITION, dict(opens=3, logins=2, late=False), ["I1", "I6"]),
    ("first edition: one person, logout", FIRST_EDITION, dict(people=1, opens=3, logins=2, logouts=1, late=False), ["I3"]),
    ("first edition: an attacker's link", FIRST_EDITION, dict(people=1, opens=2, logins=1, links=1, late=False), ["I4"]),
    ("first edition: three tabs, rounds counted", FIRST_EDITION,
     dict(people=1, tabs=3, opens=4, logins=1, late=True, where=((0,), (0,), (0,)), late_kinds=("S",), most_rounds=3), ["I5"]),
    ("two people, every reply late, logins overlapping", SECOND_EDITION, dict(opens=2, logins=2, known=True), []),
    ("two people, every reply late, first forms at once, logins not overlapping", SECOND_EDITION, dict(opens=2, logins=2, overlap=False), []),
    ("known limit: first forms at once in a browser that has no device cookie, then logins of two people under way at once", SECOND_EDITION,
     dict(opens=2, logins=2), ["I1 two people in one browser at rest"]),
    ("two people, three openings, logins not overlapping", SECOND_EDITION, dict(opens=3, logins=2, overlap=False, late_kinds=("LG", "LP", "S")), []),
    ("two people, logout, replies of forms and logins late", SECOND_EDITION, dict(opens=3, logins=2, logouts=1, late_kinds=("LG", "LP"), known=True), []),
    ("one person, logout, every reply late", SECOND_EDITION, dict(people=1, opens=2, logins=2, logouts=1), []),
    ("one person, logout, three openings", SECOND_EDITION, dict(people=1, opens=3, logins=2, logouts=1, late_kinds=("LG", "LO")), []),
    ("two people, three logins, a session ends", SECOND_EDITION, dict(opens=3, logins=3, expire=1, late_kinds=("LG",), overlap=False, where=((0,), (1,))), []),
    ("a bookmark of /login, logout", SECOND_EDITION, dict(opens=3, logins=2, logouts=1, bookmarks=1, late_kinds=("LG",), overlap=False), []),
    ("an attacker's two links, a service worker", replace(SECOND_EDITION, worker=True), dict(people=1, opens=2, logins=1, links=2, late=False), []),
    ("a login whose edge can neither read nor end what it brings", SECOND_EDITION, dict(opens=3, logins=2, logouts=1, blind=1, late=False, overlap=False), []),
    ("three tabs, rounds counted", SECOND_EDITION,
     dict(people=1, tabs=3, opens=4, logins=1, late=True, where=((0,), (0,), (0,)), late_kinds=("S",), most_rounds=3), []),
    ("without: ended at login, by device", without("end_at_login", "by_device"), dict(opens=3, logins=2, logouts=1, late=False), ["I1"]),
    ("without: going on with the same person's session", without("keep"), dict(people=1, opens=3, logins=2, late=False), ["I6"]),
    ("without: a dead cookie is left, by device", without("keep_dead_cookie", "by_device"), dict(opens=3, logins=3, expire=1, late_kinds=("LG",), overlap=False, where=((0,), (1,))), ["I1"]),
    ("without: by device", without("by_device"), dict(opens=2, logins=2), ["I1"]),
    ("without: a login that cannot end the former session is refused", without("certain", "by_device"), dict(opens=3, logins=2, logouts=1, blind=1, late=False), ["I1"]),
    ("without: Fetch Metadata is enough for the form", without("same_origin_form"), dict(opens=2, logins=1, late_kinds=("LG",)), ["I6"]),
    ("without: the name of the session", without("session_name"), dict(opens=3, logins=2, late=False), ["R12"]),
    ("without: tickets are taken out of the store, a service worker", replace(without("burn"), worker=True), dict(people=1, opens=2, logins=1, links=1, late=False), ["I4"]),
]

KEPT = dict(keep_debts=True, say_debts=True, ask_all=True)
STORE_RUNS = [
    ("1 copy, deny", dict(copies=1, policy="deny", **KEPT), []),
    ("1 copy, recent", dict(copies=1, policy="recent", **KEPT), []),
    ("2 copies, recent", dict(copies=2, policy="recent", **KEPT), []),
    ("2 copies, debts in the edge's memory", dict(copies=2, policy="recent", **dict(KEPT, keep_debts=False)), ["I3 the session is back for good"]),
    ("2 copies, a logout that a server has not heard of is told as done", dict(copies=2, policy="recent", **dict(KEPT, say_debts=False)), ["I3 served"]),
    ("2 copies, a redemption writes before it has asked", dict(copies=2, policy="deny", **dict(KEPT, ask_all=False)), ["I7"]),
]


def judge(search, expected):
    """Whether a run found what it must find, and nothing else where it must find nothing."""
    search.show()
    found = list(search.violations)
    if not expected:
        return search.is_complete and not found
    missing = [kind for kind in expected if not any(name.startswith(kind) for name in found)]
    print("  as it must be" if not missing else f"  NOT FOUND, though it must be: {missing}")
    return not missing


def run_browser():
    return [judge(browser(rules, name, until=expected, **bounds), expected) for name, rules, bounds, expected in BROWSER_RUNS]


def run_stores():
    return [judge(stores("stores: " + name, until=expected, **bounds), expected) for name, bounds, expected in STORE_RUNS]


def run_rounds():
    print("\n== rounds, first edition")
    first = redirects.rounds(redirects.FIRST_EDITION)
    print("\n== rounds, six of a flow, /login redirects back, what looks like a ticket is taken out")
    draft = redirects.rounds(redirects.DRAFT)
    print("\n== rounds, second edition")
    second = redirects.rounds(redirects.SECOND_EDITION)
    print("  no violation" if not second else f"  VIOLATION I5 in {second}")
    return [bool(first), bool(draft), not second]


RUNS = {"rounds": run_rounds, "stores": run_stores, "browser": run_browser}


def main(names):
    if unknown := [name for name in names if name not in RUNS]:
        print(__doc__, f"no such run: {unknown}", file=sys.stderr)
        return 2
    # Each run is seen when it ends, into a file as well.
    sys.stdout.reconfigure(line_buffering=True)
    results = [result for name in names or RUNS for result in RUNS[name]()]
    bad = results.count(False)
    print(f"\n{len(results)} runs, " + ("all as they must be" if not bad else f"{bad} NOT as they must be"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
