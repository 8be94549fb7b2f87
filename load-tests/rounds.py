"""Rounds: every subject in turn, several times over, so that a slow minute of the machine falls on all of them."""

import os
import sys
from statistics import median

from stage import Failed


def setting(name, default):
    return int(os.environ.get(name) or default)


def rounds():
    return setting("ROUNDS", 5)


def seconds():
    return setting("SECONDS", 8)


def chosen(subjects):
    """Those that `ONLY=` names, by a part of their names; the first one always, because it is what others are held against."""
    words = [word.strip().lower() for word in os.environ.get("ONLY", "").split(",") if word.strip()]
    wanted = lambda name: not words or any(word in name.lower() for word in words)
    return [one for at, one in enumerate(subjects) if at == 0 or wanted(one[0])]


def say(text):
    print(text, file=sys.stderr, flush=True)


def in_turn(subjects, measure):
    """`subjects` are (name, value); `measure(value)` answers figures. Answers figures by name, one for each round.

    Each round begins with another subject. One that fails is left out from then on, with what it failed of.
    """
    figures, failed = {name: [] for name, _ in subjects}, {}
    for turn in range(rounds()):
        begin = turn % len(subjects)
        for name, value in subjects[begin:] + subjects[:begin]:
            if name in failed:
                continue
            try:
                one = measure(value)
            except (Failed, OSError) as error:
                failed[name] = str(error)
                say(f"  {name}: FAILED, {error}")
                continue
            figures[name].append(one)
            say(f"  round {turn + 1}  {name:28}" + "  ".join(f"{key} {value:.2f}" for key, value in one.items()))
    return figures, failed


def column(figures, key):
    return [one[key] for one in figures if key in one]


def middle(figures, key):
    values = column(figures, key)
    return median(values) if values else None


def ratio(figures, others, key):
    """The median of the rounds' ratios: both were measured within the same minute."""
    pairs = [mine[key] / theirs[key] for mine, theirs in zip(figures, others) if theirs.get(key)]
    return median(pairs) if pairs else None
