"""One session in the stores: copies on one or two memcached servers, two edges, tombstones, debts.

The browser signs out at some edge; its cookie, or a copy of it, comes back at any. A ticket that was issued before the
logout is redeemed at any edge. Servers fall silent for single edges, come back, are restarted empty; edges are restarted.

State: (servers, reach, edges, mends, ended, budget)
  servers  per server "L" the session lives | "E" tombstone | "-" nothing
  reach    per edge, per server: whether it answers
  edges    per edge: ticks of 30 s since it saw the session alive (None: never, or too long ago), servers that it owes a tombstone
  mends    (edge, server): copies that are being added
  ended    ticks since the logout was told as done, and whether it was told with a reservation; None before
  budget   silences, restarts of servers, restarts of edges, ticks
"""

from search import Search

WORDS = {"L": "lives", "E": "ended", "-": "missing", "?": "(silent)"}
EDGES = "AB"

# Ticks of 30 s for which the policy `recent` lets a session pass that an edge has verified.
BOUND = 1


def replaced(row, at, value):
    return row[:at] + (value,) + row[at + 1 :]


def stores(name, copies, policy, keep_debts, say_debts, ask_all, silences=2, server_restarts=1, edge_restarts=1, ticks=2, until=()):
    """`keep_debts`: what an edge owes survives it (2). `say_debts`: a logout that a server has not heard of says so (2).
    `ask_all`: a redemption asks all copies before it writes (1d)."""
    first = (("L",) * copies, ((True,) * copies,) * 2, ((None, frozenset()),) * 2, frozenset(), None,
             (silences, server_restarts, edge_restarts, ticks))

    def judge(state, edge, verdict, step, report):
        """A session that was told as ended has just been accepted."""
        servers, reach, edges, _, ended, _ = state
        since, reserved = ended
        know = [at for at in range(copies) if servers[at] == "E"]
        allowed = say_debts and reserved
        if any(reach[edge][at] for at in know):
            report("I7 accepted by an edge that reaches a server which knows of the end", state, step)
        elif verdict == "policy":
            # The bound is since the edge has seen it alive. That was after the logout only where that was told with a reservation.
            late = since > BOUND
            report("I3 served by the policy" + (" beyond its bound" if late else ", within its bound"), state, step, allowed=allowed or not late)
        elif not know and not any(owed for _, owed in edges):
            report("I3 the session is back for good: nobody knows of the end any more", state, step)
        elif not know:
            report("I3 served until a debt is paid: no server knows of the end", state, step, allowed=allowed)
        else:
            report("I3 served while the server that knows is silent", state, step, allowed=allowed)

    def successors(state, report):
        servers, reach, edges, mends, ended, budget = state
        for edge in range(2):
            yield from requests(state, edge, report)
            redemption(state, edge, report)
            # The edges are alike, so it is A that the browser signs out at.
            if ended is None and edge == 0:
                yield from logouts(state, edge)
            seen, owed = edges[edge]
            for at in owed:
                if reach[edge][at]:
                    paid = replaced(edges, edge, (seen, owed - {at}))
                    step = f"edge {EDGES[edge]} pays what it owes to m{at + 1}"
                    yield (replaced(servers, at, "E"), reach, paid, mends, ended, budget), step
            for at in range(copies):
                turned = replaced(reach, edge, replaced(reach[edge], at, not reach[edge][at]))
                if not reach[edge][at]:
                    step = f"m{at + 1} answers edge {EDGES[edge]} again"
                    yield (servers, turned, edges, mends, ended, budget), step
                elif budget[0]:
                    step = f"m{at + 1} does not answer edge {EDGES[edge]}"
                    yield (servers, turned, edges, mends, ended, replaced(budget, 0, budget[0] - 1)), step
            if budget[2]:
                kept = owed if keep_debts else frozenset()
                restarted = replaced(edges, edge, (None, kept))
                lost = " (what it owes is forgotten)" if owed and not keep_debts else ""
                step = f"edge {EDGES[edge]} is restarted or upgraded{lost}"
                yield (servers, reach, restarted, frozenset(m for m in mends if m[0] != edge), ended, replaced(budget, 2, budget[2] - 1)), step
        for edge, at in mends:
            arrives = reach[edge][at] and servers[at] == "-"
            mended = replaced(servers, at, "L") if arrives else servers
            step = f"the copy that edge {EDGES[edge]} adds to m{at + 1} {'arrives' if arrives else 'is refused'}"
            yield (mended, reach, edges, mends - {(edge, at)}, ended, budget), step
        for at in range(copies):
            if budget[1] and servers[at] != "-":
                step = f"m{at + 1} is restarted, empty"
                yield (replaced(servers, at, "-"), reach, edges, mends, ended, replaced(budget, 1, budget[1] - 1)), step
        if budget[3]:
            older = tuple((None if seen is None or seen > BOUND else seen + 1, owed) for seen, owed in edges)
            later = None if ended is None else (min(ended[0] + 1, BOUND + 2), ended[1])
            yield (servers, reach, older, mends, later, replaced(budget, 3, budget[3] - 1)), "30 s pass"

    def words_of(state, edge):
        servers, reach = state[0], state[1]
        return [servers[at] if reach[edge][at] else "?" for at in range(copies)]

    def requests(state, edge, report):
        servers, reach, edges, mends, ended, budget = state
        seen, owed = edges[edge]
        words = words_of(state, edge)
        now_seen = seen
        if "E" in words:
            verdict, now_seen = "ended", None
            servers = tuple("E" if word in "L-" else servers[at] for at, word in enumerate(words))
        elif "L" in words:
            verdict, now_seen = "lives", 0
            mends |= {(edge, at) for at, word in enumerate(words) if word == "-"}
        elif "?" not in words:
            verdict, now_seen = "gone", None
        else:
            # A pass under the policy does not renew it.
            verdict = "policy" if policy == "recent" and seen is not None and seen <= BOUND else "503"
        told = "/".join(WORDS[word] for word in words)
        step = f"edge {EDGES[edge]} gets a request with the session's cookie; servers say {told}: {verdict}"
        if ended is not None and verdict in ("lives", "policy"):
            judge(state, edge, verdict, step, report)
        yield (servers, reach, replaced(edges, edge, (now_seen, owed)), mends, ended, budget), step

    def redemption(state, edge, report):
        """A ticket of this session arrives. Writing the last access to one copy and asking no other is not enough. What it
        changes is what any request changes."""
        words = words_of(state, edge)
        if state[4] is not None and "L" in words and not (ask_all and "E" in words):
            told = "/".join(WORDS[word] for word in words)
            judge(state, edge, "lives", f"edge {EDGES[edge]} redeems a ticket; servers say {told}: accepted", report)

    def logouts(state, edge):
        servers, reach, edges, mends, _, budget = state
        heard = [at for at in range(copies) if reach[edge][at]]
        if not heard:
            return
        servers = tuple("E" if at in heard else word for at, word in enumerate(servers))
        owed = edges[edge][1] | {at for at in range(copies) if at not in heard}
        how = "told as done" if not owed else "one is owed" + (", which is said" if say_debts else ", and told as done")
        step = f"logout at edge {EDGES[edge]}: {len(heard)} of {copies} servers took the tombstone, {how}"
        yield (servers, reach, replaced(edges, edge, (None, owed)), mends, (0, bool(owed)), budget), step

    return Search(name).run(first, successors, until)
