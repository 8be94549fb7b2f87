"""Runs load tests: `python3 load-tests/run.py [SCENARIO …]`; without a name, the hot path; `all` is all of them.

ROUNDS (5), SECONDS (8) and ONLY (parts of names, with commas) choose how much is measured, RESULTS where it is written,
PROFILE which build. Everything listens on this machine's loopback and is ended with us.
"""

import importlib
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import machine
import report
import rounds
from stage import HERE


def scenarios():
    return sorted(path.stem.replace("_", "-") for path in (HERE / "scenarios").glob("*.py"))


def main():
    wanted = sys.argv[1:] or ["hot-path"]
    if wanted == ["all"]:
        wanted = scenarios()
    unknown = [name for name in wanted if name not in scenarios()]
    if unknown:
        raise SystemExit(f"no scenario {unknown[0]}; there are {', '.join(scenarios())}, and all")
    lacking = [name for name in ("nginx", "memcached", "wrk", "openssl") if not shutil.which(name)]
    if lacking:
        raise SystemExit(f"missing: {', '.join(lacking)}; `load-tests/setup` installs them")
    for name in wanted:
        scenario = importlib.import_module(f"scenarios.{name.replace('-', '_')}")
        lacking = [name for name in getattr(scenario, "NEEDS", []) if not shutil.which(name)]
        if lacking:
            rounds.say(f"{name}: left out, missing: {', '.join(lacking)}")
            continue
        rounds.say(f"{scenario.TITLE}: {rounds.rounds()} rounds of {rounds.seconds()} s")
        described = machine.description(getattr(scenario, "CLIENT", machine.WRK))
        settings = {"rounds": rounds.rounds(), "seconds each": rounds.seconds()}
        settings["build"] = os.environ.get("PROFILE") or "release"
        if os.environ.get("ONLY"):
            settings["only these rows were asked for, beside the first"] = os.environ["ONLY"]
        result = {"title": scenario.TITLE, "text": scenario.TEXT, "settings": settings, "columns": scenario.COLUMNS}
        result["rows"] = scenario.run()
        path = report.keep(name, result, described)
        print("\n".join(report.table(result)))
        print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
