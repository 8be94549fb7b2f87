"""One browser with several tabs, two people before it, and an attacker who sends links.

A request is three steps, between which everything else may happen: it is sent with the cookies of that moment, it is
processed (atomically), and its reply is delivered, which sets its cookies and sends the next hop. `/noCookie` reads no
cookie and is folded into the start. A person opens a service, types the password into any open form, or signs out at any
page; a session may idle out or be ended by an administrator.

State: (jar, sessions, devices, tickets, tabs, budget, ghost)
  jar       sign-on cookie, device cookie, iq cookie, dx cookie, iq state cookie, dx state cookie; 0 where there is none
  sessions  (person, alive, when the password was typed); a session's id is its place in the list, from 1
  devices   (device, id of its current session or 0 after a logout, when)
  tickets   (token, host, nonce, used)
  tabs      ("idle",) | ("req", url, jar when sent, whether no login or logout was under way when it was sent or since) | ("rsp", cookies, next, url) | ("page", what, …)
  budget    openings, logins, logouts, expiries, links, openings of /login, logins whose edge is blind
  ghost     who typed last (-1 unclear, 0 nobody or signed out), tickets that the attacker has, people who have signed in,
            whether anybody has signed out, counted rounds, moments so far

Tokens, which cookies and tickets hold, are negative numbers: session and moment of its password. Nonces and devices are
numbers from 10, renumbered by first use, so that states which differ in names alone are one. The second person appears
after the first.
"""

from dataclasses import dataclass

from search import Search

SERVICES = ("iq", "dx")
ATTACKERS_NONCE = 9
ATTACKER = 3
SIGN_ON, DEVICE, TOKEN, STATE = 0, 1, 2, 4
COOKIES = ("sign-on cookie", "device cookie", "iq cookie", "dx cookie", "iq state", "dx state")
LANDING = 2
CHANGING = ("LP", "LO")


@dataclass(frozen=True)
class Rules:
    """The rules of `design/sso-flow.md`, each of which can be left out. All off: the first edition."""

    end_at_login: bool = False  # a login ends another person's session that the browser brings (1a)
    keep: bool = False  # a login of the person whose session it brings goes on with it (1a)
    by_device: bool = False  # a device has one current session, swapped by logins, marked by logouts (1b)
    certain: bool = False  # a login that cannot end what it brings is refused with 503; what it cannot verify it ends by name (1c)
    newer_wins: bool = False  # at a redemption the later password wins (1d)
    end_at_redemption: bool = False  # a redemption ends the other session of the service's cookie (1d)
    keep_dead_cookie: bool = False  # the sign-on host clears its cookie at logout alone (1e)
    logout_through_sign_on: bool = False  # a logout at a service goes on to the sign-on host (2)
    strip: bool = False  # a ticket is taken out of every navigation's URL (4)
    burn: bool = False  # ... and out of the store (4)
    restart_other: bool = False  # a ticket of another living session than the cookie's starts again (4)
    login_page: bool = False  # /login never redirects back (5)
    no_echo: bool = False  # a start that was sent a state cookie does not set it again (5)
    same_origin_form: bool = False  # Fetch Metadata is enough for the form (8)
    session_name: bool = False  # applications are told a stable name of the session (10)
    worker: bool = False  # not a rule: the application's service worker sees every navigation's URL


FIRST_EDITION = Rules()
SECOND_EDITION = Rules(**{name: name != "worker" for name in Rules.__dataclass_fields__})


def token(session, moment):
    return -(session * 16 + moment)


def session_of(tok):
    return -tok // 16


def moment_of(tok):
    return -tok % 16


def alive(sessions, sid):
    return sid > 0 and sessions[sid - 1][1]


def end(sessions, sid):
    person, is_alive, moment = sessions[sid - 1]
    return sessions[: sid - 1] + ((person, False, moment),) + sessions[sid:] if is_alive else sessions


def record(devices, device):
    return next(((sid, moment) for name, sid, moment in devices if name == device), None)


def recorded(devices, device, sid, moment):
    return tuple(entry for entry in devices if entry[0] != device) + ((device, sid, moment),)


def spent(tickets, ticket):
    tok, host, nonce, _ = tickets[ticket - 1]
    return tickets[: ticket - 1] + ((tok, host, nonce, True),) + tickets[ticket:]


def fresh_name(state):
    """A nonce or a device that nothing refers to."""
    used = set()
    todo = [state[0], state[2], state[3], state[4]]
    while todo:
        for part in todo.pop():
            if type(part) is tuple:
                todo.append(part)
            elif type(part) is int and part >= 10:
                used.add(part)
    return next(name for name in range(10, 10_000) if name not in used)


class Answer:
    """What processing a request changes and answers."""

    def __init__(self, state, cookies, following, event=None, **changed):
        _, self.sessions, self.devices, self.tickets, _, _, ghost = state
        self.moment = ghost[5]
        self.cookies, self.following, self.event = cookies, following, event
        for name, value in changed.items():
            setattr(self, name, value)


def process(rules, state, url, jar):
    """The answers that a request with these cookies may get; more than one where the edge may be blind."""
    return {"S": at_service, "CC": copy_cookie, "LG": login_form, "LP": login, "LO": logout}[url[0]](rules, state, url, jar)


def at_service(rules, state, url, jar):
    _, sessions, _, tickets, _, _, _ = state
    _, service, ticket = url
    tok, nonce = jar[TOKEN + service], jar[STATE + service]
    sid = session_of(tok)
    good = alive(sessions, sid)
    page = ("page", "app", service, sessions[sid - 1][0] if good else 0, sid)

    def start(tickets=tickets):
        sent = nonce or fresh_name(state)
        cookies = () if rules.no_echo and nonce else ((STATE + service, sent),)
        if tok:
            cookies += ((TOKEN + service, 0),)
        return [Answer(state, cookies, ("CC", service, sent), tickets=tickets)]

    if not ticket:
        return [Answer(state, (), page)] if good else start()
    offered, host, bound_to, used = tickets[ticket - 1]
    offered_sid = session_of(offered)
    names_another = good and sid != offered_sid and alive(sessions, offered_sid)
    if nonce:
        taken = spent(tickets, ticket)
        accepted = not used and host == service and bound_to == nonce and alive(sessions, offered_sid)
        if accepted and rules.newer_wins and names_another and moment_of(tok) > moment_of(offered):
            accepted = False
        if accepted:
            if rules.end_at_redemption and names_another:
                sessions = end(sessions, sid)
            cookies = ((TOKEN + service, offered), (STATE + service, 0))
            return [Answer(state, cookies, ("S", service, 0), ("redeemed", ticket, used), sessions=sessions, tickets=taken)]
        if good and not (rules.restart_other and names_another):
            return [Answer(state, (), ("S", service, 0), tickets=taken)]
        return start(taken)
    if rules.strip:
        taken = spent(tickets, ticket) if rules.burn else tickets
        if rules.restart_other and names_another:
            return start(taken)
        return [Answer(state, (), ("S", service, 0), tickets=taken)]
    if good:
        return [Answer(state, (), page, ("leak", ticket))]
    return start()


def copy_cookie(rules, state, url, jar):
    _, sessions, devices, tickets, _, _, _ = state
    _, service, nonce = url
    tok, device = jar[SIGN_ON], jar[DEVICE]
    sid = session_of(tok)
    if not alive(sessions, sid):
        return [Answer(state, (), ("LG", service, nonce))]
    person, _, moment = sessions[sid - 1]
    # A device that nobody has signed in with gets no record: anybody may have any number of them.
    if rules.by_device and (known := record(devices, device)):
        current, since = known
        if current != sid and since > moment:
            # The browser has signed in, or out, since: the session that it brings is ended.
            return [Answer(state, (), ("LG", service, nonce), sessions=end(sessions, sid))]
        if current != sid and alive(sessions, current):
            sessions = end(sessions, current)
        devices = recorded(devices, device, sid, moment)
    changed = dict(sessions=sessions, devices=devices)
    if service == LANDING:
        return [Answer(state, (), ("page", "app", LANDING, person, sid), **changed)]
    if nonce == 0:
        return [Answer(state, (), ("S", service, 0), **changed)]
    tickets = tickets + ((tok, service, nonce, False),)
    return [Answer(state, (), ("S", service, len(tickets)), tickets=tickets, **changed)]


def login_form(rules, state, url, jar):
    _, sessions, _, _, _, _, _ = state
    _, service, nonce = url
    sid = session_of(jar[SIGN_ON])
    device = jar[DEVICE] or fresh_name(state)
    cookies = () if jar[DEVICE] else ((DEVICE, device),)
    if alive(sessions, sid):
        if not rules.login_page:
            return [Answer(state, (), ("CC", service, nonce))]
        return [Answer(state, cookies, ("page", "signed in", service, nonce, device))]
    if jar[SIGN_ON] and not rules.keep_dead_cookie:
        cookies += ((SIGN_ON, 0),)
    return [Answer(state, cookies, ("page", "form", service, nonce, device))]


def login(rules, state, url, jar):
    _, sessions, devices, _, _, budget, ghost = state
    _, service, nonce, person, secret, is_blind = url
    if not rules.same_origin_form and secret != jar[DEVICE]:
        return [Answer(state, (), ("page", "err", "the form is too old (403)"))]
    brought, device, moment = session_of(jar[SIGN_ON]), jar[DEVICE], ghost[5] + 1
    if is_blind and alive(sessions, brought):
        if not rules.certain:
            return [signed_in(rules, state, url, jar, set(), moment)]
        # The edge cannot verify the cookie: it is ended by the session that it names, whoever signed it. Or the edge
        # cannot reach that session's store: then nobody is signed in, and the form is kept.
        named = of_device(rules, devices, device) | {brought}
        return [Answer(state, (), ("page", "form", service, nonce, secret)), signed_in(rules, state, url, jar, named, moment)]
    doomed = of_device(rules, devices, device) | ({brought} if rules.end_at_login else set())
    return [signed_in(rules, state, url, jar, doomed, moment)]


def of_device(rules, devices, device):
    current = record(devices, device) if rules.by_device and device else None
    return {current[0]} if current else set()


def signed_in(rules, state, url, jar, doomed, moment):
    _, sessions, devices, _, _, _, _ = state
    _, service, nonce, person, _, _ = url
    device = jar[DEVICE]
    brought = session_of(jar[SIGN_ON])
    # The device's record names no person, so only a session that came with the browser is gone on with.
    goes_on = rules.keep and brought in doomed and alive(sessions, brought) and sessions[brought - 1][0] == person
    kept = brought if goes_on else 0
    for sid in doomed - {kept}:
        if alive(sessions, sid):
            sessions = end(sessions, sid)
    if kept:
        sessions = sessions[: kept - 1] + ((person, True, moment),) + sessions[kept:]
    else:
        sessions = sessions + ((person, True, moment),)
        kept = len(sessions)
    if rules.by_device and device:
        devices = recorded(devices, device, kept, moment)
    cookies = ((SIGN_ON, token(kept, moment)),)
    if device:
        # With the mark of the account that has just signed in.
        cookies += ((DEVICE, device),)
    return Answer(state, cookies, ("CC", service, nonce), sessions=sessions, devices=devices, moment=moment)


def logout(rules, state, url, jar):
    _, sessions, devices, _, _, _, ghost = state
    _, host = url
    at, device, moment = SIGN_ON if host == LANDING else TOKEN + host, jar[DEVICE], ghost[5]
    if jar[at]:
        sessions = end(sessions, session_of(jar[at]))
    if rules.by_device and host == LANDING and record(devices, device):
        for sid in of_device(rules, devices, device):
            if alive(sessions, sid):
                sessions = end(sessions, sid)
        moment += 1
        devices = recorded(devices, device, 0, moment)
    following = ("LO", LANDING) if rules.logout_through_sign_on and host != LANDING else ("page", "out")
    return [Answer(state, ((at, 0),), following, sessions=sessions, devices=devices, moment=moment)]


def canonical(state):
    """Renumbers nonces and devices by first use; forgets tickets and devices that nobody refers to."""
    jar, sessions, devices, tickets, tabs, budget, ghost = state
    referred = set(ghost[1])
    todo = [tabs]
    while todo:
        for part in todo.pop():
            if type(part) is tuple:
                todo.append(part)
                if len(part) == 3 and part[0] == "S" and part[2]:
                    referred.add(part[2])
    order = sorted(referred)
    places = {ticket: place + 1 for place, ticket in enumerate(order)}
    names = {}

    def name(number):
        return number if number < 10 else names.setdefault(number, 10 + len(names))

    def renamed(part):
        if len(part) == 3 and part[0] == "S":
            return ("S", part[1], places.get(part[2], 0))
        return tuple(renamed(x) if type(x) is tuple else (name(x) if type(x) is int else x) for x in part)

    jar, tabs = renamed(jar), renamed(tabs)
    tickets = tuple(renamed(tickets[ticket - 1]) for ticket in order)
    devices = tuple(sorted((names[d], sid, moment) for d, sid, moment in devices if d in names))
    return jar, sessions, devices, tickets, tabs, budget, (ghost[0], tuple(places[t] for t in ghost[1])) + ghost[2:]


def place(service):
    return SERVICES[service] if service < LANDING else "landing"


def say(url):
    kind = url[0]
    if kind == "S":
        return SERVICES[url[1]] + (f"/?requestID=t{url[2]}" if url[2] else "/")
    if kind == "CC":
        return f"/copyCookie for {place(url[1])} (state {'of the attacker' if url[2] == ATTACKERS_NONCE else f'n{url[2]}'})"
    if kind == "LG":
        return f"GET /login for {place(url[1])}"
    if kind == "LP":
        return f"POST /login as p{url[3]} for {place(url[1])}"
    return "logout at " + (SERVICES[url[1]] if url[1] < LANDING else "the sign-on host")


def outcome(following):
    if following[0] != "page":
        return "-> " + say(following)
    if following[1] == "app":
        return f"SERVED as p{following[3]} at {place(following[2])}"
    return {"form": "form shown", "signed in": "'you are signed in'", "out": "'you are signed out'"}.get(following[1]) or f"ERROR: {following[2]}"


def changes(tab):
    if tab[0] not in ("req", "rsp"):
        return None
    kind = tab[1 if tab[0] == "req" else 3][0]
    return kind if kind in CHANGING else None


def is_busy(tabs):
    return any(changes(tab) for tab in tabs)


def deliver(state, place_, label):
    jar, sessions, devices, tickets, tabs, budget, ghost = state
    _, cookies, following, url = tabs[place_]
    kept = list(jar)
    for at, value in cookies:
        kept[at] = value
    kept = tuple(kept)

    def told(at, value):
        if not value:
            return COOKIES[at] + " cleared"
        return f"{COOKIES[at]} = {f'session {session_of(value)}' if value < 0 else f'n{value}'}"

    if cookies:
        label += " [" + ", ".join(told(at, value) for at, value in cookies) + "]"
    if url[0] == "LO" and following[0] == "page":
        ghost = (0 if ghost[0] != -1 else -1, ghost[1], ghost[2], 1) + ghost[4:]
    if following[0] == "page":
        tab = following
    else:
        others = tabs[:place_] + (("idle",),) + tabs[place_ + 1 :]
        tab = ("req", following, kept, not is_busy(others))
    tabs = tabs[:place_] + (tab,) + tabs[place_ + 1 :]
    return (kept, sessions, devices, tickets, tabs, budget, ghost), label


def browser(rules, name, tabs=2, opens=3, logins=2, logouts=0, expire=0, links=0, bookmarks=0, blind=0, people=2,
            overlap=True, late=True, known=False, where=None, late_kinds=None, most_rounds=None, cap=400_000, until=()):
    """Explores one set of rules within these bounds. `late`: replies may arrive late (`late_kinds`: only of these);
    `overlap`: a login or logout may begin while another is under way; `known`: the browser has a device cookie already; `most_rounds`: more counted rounds are a violation;
    `where`: the services that each tab opens."""
    first_budget = (opens, logins, logouts, expire, links, bookmarks, blind)
    nowhere = ((0, 10 if known else 0, 0, 0, 0, 0), (), (), (), (("idle",),) * tabs, first_budget, (0, (), 0, 0, 0, 0))

    def after(state, place_, url, budget, ghost=None, sessions=None, tickets=None):
        """A request is sent. One that changes who is signed in makes those under way stale: of two such requests that were
        under way together it is the network that says which comes last."""
        jar, old_sessions, devices, old_tickets, tbs, _, old_ghost = state
        base = tbs
        if url[0] in CHANGING:
            base = tuple((tab[0], tab[1], tab[2], False) if tab[0] == "req" else tab for tab in base)
        request = ("req", url, jar, not is_busy(tbs))
        base = base[:place_] + (request,) + base[place_ + 1 :]
        return (jar, old_sessions if sessions is None else sessions, devices, old_tickets if tickets is None else tickets,
                base, budget, old_ghost if ghost is None else ghost)

    def spend(budget, at):
        return budget[:at] + (budget[at] - 1,) + budget[at + 1 :]

    def acts(state, place_, tab):
        """What a person may do at a tab that shows a page or nothing."""
        jar, sessions, _, tickets, tbs, budget, ghost = state
        may_change = overlap or not is_busy(tbs)
        if budget[0]:
            for service in where[place_] if where else (0, 1):
                yield after(state, place_, ("S", service, 0), spend(budget, 0)), f"person opens {SERVICES[service]}"
        if budget[5]:
            yield after(state, place_, ("LG", LANDING, 0), spend(budget, 5)), "person opens /login (bookmark)"
        if budget[2] and tab[:2] == ("page", "app") and may_change:
            unclear = (-1 if is_busy(tbs) else ghost[0],) + ghost[1:]
            step = f"person presses logout at {place(tab[2])}"
            yield after(state, place_, ("LO", tab[2]), spend(budget, 2), unclear), step
        if budget[4]:
            yield from follow_links(state, place_, budget)
        if tab[:2] == ("page", "signed in"):
            step = "person chooses to sign in as somebody else"
            yield (jar,) + state[1:4] + (tbs[:place_] + (("page", "form") + tab[2:],) + tbs[place_ + 1 :],) + state[5:], step
            if budget[0]:
                step = "person goes on as who is signed in"
                yield after(state, place_, ("CC", tab[2], tab[3]), spend(budget, 0)), step
        if tab[:2] == ("page", "form") and budget[1] and may_change:
            for person in (p for p in range(1, people + 1) if p == 1 or ghost[2] & 1):
                unclear = (-1, ghost[1], ghost[2] | 1 << (person - 1)) + ghost[3:]
                for is_blind in (False, True)[: 2 if budget[6] else 1]:
                    left = spend(spend(budget, 1), 6) if is_blind else spend(budget, 1)
                    url = ("LP", tab[2], tab[3], person, tab[4], is_blind)
                    how = " to an edge that can neither read nor end what it brings" if is_blind else ""
                    step = f"p{person} types the password and sends the form (for {place(tab[2])}){how}"
                    yield after(state, place_, url, left, unclear), step

    def follow_links(state, place_, budget):
        _, sessions, _, tickets, _, _, ghost = state
        for service in (0, 1):
            url = ("CC", service, ATTACKERS_NONCE)
            step = f"victim follows the attacker's link /copyCookie?redirectURL={SERVICES[service]}&state=<attacker's>"
            yield after(state, place_, url, spend(budget, 4)), step
            if not any(session[0] == ATTACKER for session in sessions):
                theirs = sessions + ((ATTACKER, True, 0),)
                ticket = tickets + ((token(len(theirs), 0), service, ATTACKERS_NONCE, False),)
                url = ("S", service, len(ticket))
                step = f"victim follows {SERVICES[service]}/?requestID=<ticket of the attacker's own session>"
                yield after(state, place_, url, spend(budget, 4), None, theirs, ticket), step

    def processed(state, place_, tab, report):
        """A request that was sent reaches its edge."""
        jar, sessions, devices, tickets, tbs, budget, ghost = state
        _, url, captured, is_fresh = tab
        for answer in process(rules, state, url, captured):
            following, event, lg = answer.following, answer.event, ghost[:5] + (answer.moment,)
            label = f"tab{place_ + 1}: {say(url)} {outcome(following)}"
            if url[0] == "LP":
                others = [changes(other) for at, other in enumerate(tbs) if at != place_]
                crossed = any(others) or not is_fresh
                refused = following[0] == "page"
                # A refused login changes nothing: who typed last stays unclear only where that was so before.
                lg = (-1 if crossed or refused else url[3],) + lg[1:]
            if event and event[0] == "redeemed" and event[2]:
                report("I2 a ticket is redeemed twice", state, label)
            ticket = url[2] if url[0] == "S" else 0
            if most_rounds is not None and url[0] == "S" and following[0] == "CC" and (ticket or captured[TOKEN + url[1]]):
                lg = lg[:4] + (lg[4] + 1,) + lg[5:]
                if lg[4] > most_rounds:
                    report(f"I5 more than {most_rounds} counted rounds", state, label)
                    continue
            if ticket and ((event and event[0] == "leak") or rules.worker):
                tok, _, nonce, used = answer.tickets[ticket - 1]
                if not used and ticket not in lg[1]:
                    lg = (lg[0], lg[1] + (ticket,)) + lg[2:]
                if event and event[0] == "leak":
                    report("I4 an application sees a ticket in its URL", state, label)
                sid = session_of(tok)
                if not used and nonce == ATTACKERS_NONCE and answer.sessions[sid - 1][0] != ATTACKER and alive(answer.sessions, sid):
                    report("I4 the attacker can redeem a ticket of the victim's session", state, label)
            if following[0] == "page":
                judge_page(state, answer, lg, following, is_fresh, label, report)
            reply = ("rsp", answer.cookies, following, url if url[0] in CHANGING else ("S", 0, 0))
            after_ = (jar, answer.sessions, answer.devices, answer.tickets, tbs[:place_] + (reply,) + tbs[place_ + 1 :], budget, lg)
            if late and (not late_kinds or url[0] in late_kinds):
                yield after_, label
            else:
                yield deliver(after_, place_, label)

    def judge_page(state, answer, ghost, page, is_fresh, label, report):
        budget = state[5]
        if page[1] == "app":
            person = page[3]
            if person == ATTACKER:
                report("I4 the victim is the attacker", state, label)
            if is_fresh and ghost[0] > 0 and person != ghost[0]:
                report("I1 served as somebody else than who typed last", state, f"{label} though p{ghost[0]} typed last")
            if is_fresh and ghost[0] == 0 and ghost[3]:
                report("I3 served after a logout that was told as done", state, label)
        if page[1] == "err" and not ghost[3]:
            report("I6 an error though only tabs interleaved", state, label)
        nothing_ended = not ghost[3] and budget[3] == first_budget[3] and budget[6] == first_budget[6]
        if page[1] == "form" and people == 1 and nothing_ended and ghost[0] > 0 and is_fresh:
            if any(session[0] == ghost[0] and session[1] for session in answer.sessions):
                report("I6 a form again though signed in", state, label)

    def at_rest(state, report):
        jar, sessions, _, _, tbs, budget, ghost = state
        mine = [(at, session_of(jar[at])) for at in (SIGN_ON, TOKEN, TOKEN + 1)]
        living = [(at, sid) for at, sid in mine if alive(sessions, sid)]
        if len({sessions[sid - 1][0] for _, sid in living}) > 1:
            report("I1 two people in one browser at rest", state, ", ".join(f"{COOKIES[at]} = session {sid} of p{sessions[sid - 1][0]}" for at, sid in living))
        one_person_only = ghost[0] > 0 and not ghost[2] & (ghost[2] - 1) and not ghost[3]
        for at, tab in enumerate(tbs):
            if tab[:2] != ("page", "app") or tab[2] == LANDING:
                continue
            sid = session_of(jar[TOKEN + tab[2]])
            if alive(sessions, sid) and sessions[sid - 1][0] != tab[3] and not (rules.session_name and sid != tab[4]):
                report("R12 a page that was loaded as one person is sent as another, and the application cannot tell", state,
                       f"tab{at + 1}: Save on the page of p{tab[3]} at {SERVICES[tab[2]]} is forwarded as p{sessions[sid - 1][0]}")
            if one_person_only and budget[3] == first_budget[3] and budget[6] == first_budget[6] and tab[3] == ghost[0] and not alive(sessions, sid):
                report("I6 a save in an open tab is refused though one person only signed in twice", state, f"tab{at + 1}: p{ghost[0]} presses Save in {SERVICES[tab[2]]}")

    def successors(state, report):
        jar, sessions, devices, tickets, tbs, budget, ghost = state
        for at, tab in enumerate(tbs):
            if tab[0] in ("idle", "page"):
                for following, step in acts(state, at, tab):
                    yield canonical(following), f"tab{at + 1}: {step}"
            elif tab[0] == "req":
                for following, step in processed(state, at, tab, report):
                    yield canonical(following), step
            else:
                following, step = deliver(state, at, f"tab{at + 1}: the reply arrives")
                yield canonical(following), step
        if budget[3]:
            for at, (person, is_alive, _) in enumerate(sessions):
                if is_alive and person != ATTACKER:
                    unclear = (-1 if ghost[0] == person else ghost[0],) + ghost[1:]
                    following = (jar, end(sessions, at + 1), devices, tickets, tbs, spend(budget, 3), unclear)
                    step = f"session {at + 1} of p{person} idles out or is ended by an administrator"
                    yield canonical(following), step
        if not any(tab[0] in ("req", "rsp") for tab in tbs):
            at_rest(state, report)

    return Search(name, cap).run(canonical(nowhere), successors, until)
