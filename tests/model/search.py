"""Breadth-first search over states, so that the first violation of a kind has a shortest trace."""

import time
from collections import deque


class Search:
    """All states that can be reached from one. `report` is called by whoever finds a state or a step that must not be."""

    def __init__(self, name, most_states=400_000):
        self.name, self.most_states = name, most_states
        self.violations, self.exceptions = {}, {}
        self._parents = {}
        self.is_complete = True
        self.seconds = 0.0

    def report(self, kind, state, last_step, allowed=False):
        """A violation or, where a rule of the product names and bounds it, an exception."""
        found = self.exceptions if allowed else self.violations
        if kind not in found:
            found[kind] = self._trace_to(state) + [last_step]

    def _trace_to(self, state):
        trace = []
        while self._parents[state]:
            state, step = self._parents[state]
            trace.append(step)
        return trace[::-1]

    def run(self, first, successors, until=()):
        """`successors` names the states that follow one, with the steps that lead there. Ends early when violations of
        all kinds in `until`, named by their beginnings, have been found."""
        begun = time.time()
        parents = self._parents = {first: None}
        queue = deque([first])
        wanted = set(until)
        while queue and self.is_complete:
            if until and not (wanted := {kind for kind in wanted if not any(name.startswith(kind) for name in self.violations)}):
                break
            state = queue.popleft()
            for following, step in successors(state, self.report):
                if following not in parents:
                    parents[following] = (state, step)
                    queue.append(following)
                    if len(parents) >= self.most_states:
                        self.is_complete = False
                        break
        self.states, self.seconds = len(parents), time.time() - begun
        self._parents = {}
        self.is_complete &= not queue
        return self

    def show(self):
        complete = "" if self.is_complete else " (not all there are)"
        print(f"\n== {self.name}: {self.states} states{complete}, {self.seconds:.0f} s")
        for word, found in (("VIOLATION", self.violations), ("exception that the documents name:", self.exceptions)):
            for kind, trace in sorted(found.items()):
                print(f"  {word} {kind} ({len(trace)} steps)")
                if word == "VIOLATION":
                    for step in trace:
                        print("     -", step)
        if not self.violations:
            print("  no violation")
