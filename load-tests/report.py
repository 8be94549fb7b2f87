"""Keeps the numbers of a day's runs in one JSON file and writes them out as a table for people and a plot."""

import datetime
import json
import os
from pathlib import Path

import bars
import plot
from rounds import column, middle, ratio
from stage import HERE


def folder():
    return Path(os.environ.get("RESULTS") or HERE / "results")


def keep(scenario, result, machine):
    """Adds a scenario to today's numbers; an earlier run of the same scenario on the same day is replaced."""
    folder().mkdir(parents=True, exist_ok=True)
    day = datetime.date.today().isoformat()
    path = folder() / f"{day}.json"
    numbers = json.loads(path.read_text()) if path.exists() else {"scenarios": {}}
    numbers["scenarios"][scenario] = {**result, "machine": machine}
    path.write_text(json.dumps(numbers, indent=1) + "\n")
    main = result["columns"][0]
    plot.write(folder() / f"{day}-{scenario}.svg", f"{result['title']}: {main[1]}", result["rows"], main[0])
    (folder() / f"{day}.md").write_text(document(day, numbers))
    return folder() / f"{day}.md"


def document(day, numbers):
    text = [f"# Load tests of {day}", ""]
    text += ["Written by `make load-test`; the numbers of each round are in the JSON file beside this one.", ""]
    text += ["Figures of one machine in one run: compare rows, not absolute values."]
    text += ["A ratio is this row's main figure divided by the first row's, as the median of the rounds' ratios.", ""]
    text += ["## Bars", "", *bars.table(numbers), ""]
    for name, result in numbers["scenarios"].items():
        text += section(day, name, result)
    return "\n".join(text)


def section(day, name, result):
    text = [f"## {result['title']}", "", result["text"], ""]
    settings = {**result["settings"], **result["machine"]}
    text += ["; ".join(f"{key}: {value}" for key, value in settings.items()) + ".", ""]
    text += [f"![{result['title']}]({day}-{name}.svg)", ""]
    text += table(result) + [""]
    text += ["| | checked before | TLS | version |", "|---|---|---|---|"]
    for row in result["rows"]:
        if not row.get("missing"):
            text.append(f"| {row['name']} | {row.get('check', '')} | {row.get('suite', '')} | {row.get('version', '')} |")
    commands = {row["command"]: row["name"] for row in result["rows"] if row.get("command")}
    text += ["", "```", *(f"{name}: {command}" for command, name in commands.items()), "```", ""]
    return text


def table(result):
    columns = result["columns"]
    main = columns[0][0]
    text = ["| | does | " + " | ".join(heading for _, heading, _ in columns) + " | ratio |"]
    text += ["|---|---|" + "---:|" * (len(columns) + 1)]
    base = result["rows"][0]["figures"]
    for row in result["rows"]:
        why = row.get("missing") and f"missing: {row['missing']}" or row.get("failed") and f"failed: {row['failed']}"
        if why or not row["figures"]:
            why = " ".join((why or "not measured").replace("|", "/").split())
            text.append(f"| {row['name']} | {why} |" + " |" * (len(columns) + 1))
            continue
        cells = [shown(row["figures"], key, digits) for key, _, digits in columns]
        against = ratio(row["figures"], base, main)
        cells.append(f"{against:.2f}" if against else "")
        text.append(f"| {row['name']} | {row['does']} | " + " | ".join(cells) + " |")
    return text


def shown(figures, key, digits):
    """The median, and from where to where it went."""
    values = column(figures, key)
    if not values:
        return ""
    text = f"{middle(figures, key):,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"
