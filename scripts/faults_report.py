"""Joins the outcomes of the fault suite: faults_report.py OUTCOMES RESULTS writes RESULTS/faults.json and RESULTS/faults.md.

A scenario that was not run this time keeps the figures it had; each says when and at which commit it was measured.
"""

import datetime
import json
import pathlib
import platform
import subprocess
import sys


def machine():
    names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} threads, {platform.system()} {platform.release()}"


def commit():
    return subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"


def times(figures):
    return f"{figures['p50']:.1f} / {figures['p99']:.1f} / {figures['longest']:.1f}"


def row(name, outcome):
    verdict = outcome["verdict"]
    known = {"scenario", "what", "verdict", "measured", "commit", "machine"}
    rest = []
    for key, value in outcome.items():
        if key in known:
            continue
        if isinstance(value, dict) and "p99" in value:
            rest.append(f"{key.replace('_', ' ')} (p50 / p99 / longest): {times(value)}")
        elif isinstance(value, dict):
            rest.append(f"{key.replace('_', ' ')}: " + ", ".join(f"{k} {v}" for k, v in value.items()))
        else:
            rest.append(f"{key.replace('_', ' ')}: {round(value, 1) if isinstance(value, float) else value}")
    cells = [name, outcome["what"], f"{verdict['acknowledged']:,}"]
    cells += [str(verdict[key]) for key in ("lost", "duplicated", "mistaken", "out_of_order")]
    return "| " + " | ".join(cells + ["; ".join(rest)]) + " |"


def main(outcomes, results):
    target = pathlib.Path(results) / "faults.json"
    known = json.loads(target.read_text())["scenarios"] if target.exists() else {}
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    for file in sorted(pathlib.Path(outcomes).glob("*.json")):
        outcome = json.loads(file.read_text())
        known[outcome["scenario"]] = {**outcome, "measured": now, "commit": commit(), "machine": machine()}
    target.write_text(json.dumps({"command": "make faults", "scenarios": known}, indent=1) + "\n")
    kills = 0
    for outcome in known.values():
        count = outcome.get("kills", 0)
        kills += sum(count.values()) if isinstance(count, dict) else count
    total = lambda key: sum(outcome["verdict"][key] for outcome in known.values())
    lines = [
        "# What broke, and what it cost",
        "",
        "Written by `make faults`. A producer sends all the while and notes what Kafka acknowledged; the oracle compares that with the rows of",
        "both tables. *Lost*: acknowledged and in neither table. *Twice*: an offset or an id that is there more than once. *Mistaken*: another",
        "post at an offset than was sent there. *Out of order*: a commit whose offset is not beyond the one before it.",
        "",
        f"{kills} kills with SIGKILL; {total('acknowledged'):,} posts acknowledged, {total('lost')} lost, {total('duplicated')} twice.",
        "",
        "| scenario | what happens | posts | lost | twice | mistaken | out of order | figures |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [row(name, known[name]) for name in sorted(known)]
    lines += ["", "Times are seconds until everything that was acknowledged at the fault is committed; a killed member is missed by its group only after",
              "its session of 6 s.", ""]
    lines += sorted({f"Measured {one['measured']} at {one['commit']} on {one['machine']}." for one in known.values()})
    (pathlib.Path(results) / "faults.md").write_text("\n".join(lines) + "\n")
    print(f"faults: {target.with_suffix('.md')}")


main(*sys.argv[1:3])
