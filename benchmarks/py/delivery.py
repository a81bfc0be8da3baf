"""Kafka to table, measured: whole workers against a real Kafka on this machine. Run by scripts/delivery.

  delivery.py throughput [--posts 1000000] [--rounds 3]    1, 2 and 4 workers, and two plain Python consumers, in turns
  delivery.py soak [--minutes 60] [--rate 2000]            one worker on a steady feed: do memory, commits or open files grow?

Writes benchmarks/results/delivery.json and soak.json, and the tables of both in delivery.md.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
HERE = pathlib.Path(__file__).resolve().parent
PARTITIONS = 8
TAMIZ = [str(ROOT / "scripts" / "runner"), os.environ.get("TAMIZ_BINARY") or str(ROOT / ".cache" / "target" / "debug" / "tamiz")]
BROKERS, KAFKA = os.environ.get("TAMIZ_KAFKA", ""), os.environ.get("TAMIZ_KAFKA_DIR", "")


def configuration(folder, topic, name, extra=""):
    path = folder / f"{name}.toml"
    path.write_text(
        f'[pipeline]\nname = "{name}"\n[source.kafka]\nbrokers = "{BROKERS}"\ntopics = ["{topic}"]\ngroup = "{name}"\n'
        f'[sink]\nposts = "{folder / name / "posts"}"\ndead_letters = "{folder / name / "dead"}"\n{extra}'
    )
    return str(path)


def make_topic(topic):
    command = [str(ROOT / "scripts" / "kafka"), "topic", "create", topic, "--partitions", str(PARTITIONS)]
    subprocess.run(command + (["--dir", KAFKA] if KAFKA else []), check=True, stdout=subprocess.DEVNULL)


def fill(folder, topic, posts):
    """A topic with so many posts; seconds that producing took."""
    lines = folder / "posts.jsonl"
    with open(lines, "wb") as out:
        subprocess.run([sys.executable, str(HERE / "feed.py"), str(posts)], stdout=out, check=True)
    make_topic(topic)
    config = configuration(folder, topic, "fill")
    begun = time.monotonic()
    subprocess.run([*TAMIZ, "produce", "-c", config, "--topic", topic, str(lines)], check=True, stderr=subprocess.DEVNULL)
    size = lines.stat().st_size
    lines.unlink()
    return {"posts": posts, "bytes_per_post": round(size / posts, 1), "produce_seconds": round(time.monotonic() - begun, 1)}


def peak_memory(processes):
    """Resets nothing: the highest resident size that each process had, in bytes, while it lives."""
    total = 0
    for process in processes:
        try:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        total += int(found[1]) * 1024 if found else 0
    return total


def workers(folder, topic, count, round_number):
    name = f"w{count}r{round_number}"
    config = configuration(folder, topic, name)
    begun = time.monotonic()
    running = [
        subprocess.Popen([*TAMIZ, "run", "--no-model", "--until-caught-up", "-c", config], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(count)
    ]
    memory = 0
    while any(process.poll() is None for process in running):
        memory = max(memory, peak_memory(running))
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    said = [process.stderr.read() for process in running]
    for process, words in zip(running, said):
        if process.returncode != 0:
            raise SystemExit(f"delivery: a worker failed:\n{words}")
    commits = sum(int(found) for words in said for found in re.findall(r"in (\d+) commits", words))
    conflicts = sum(int(found) for words in said for found in re.findall(r"conflicts: (\d+)", words))
    rows, different = counted(folder / name / "posts")
    shutil.rmtree(folder / name)
    return {"seconds": seconds, "rows": rows, "ids": different, "commits": commits, "conflicts": conflicts, "memory_bytes": memory}


def counted(table):
    """Rows and different ids of a Delta table, read by another implementation."""
    import deltalake
    import pyarrow.compute as pc

    ids = deltalake.DeltaTable(str(table)).to_pyarrow_table(columns=["id"])["id"]
    return len(ids), pc.count_distinct(ids).as_py()


def consumer(folder, topic, form):
    target = folder / f"python-{form}"
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, str(HERE / "consumer.py"), BROKERS, topic, str(target), form], stdout=subprocess.PIPE, text=True)
    memory = 0
    while process.poll() is None:
        memory = max(memory, peak_memory([process]))
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    if process.returncode != 0:
        raise SystemExit(f"delivery: the Python consumer failed with {process.returncode}")
    rows = json.loads(process.stdout.read())["rows"]
    shutil.rmtree(target)
    return {"seconds": seconds, "rows": rows, "memory_bytes": memory}


def throughput(options):
    with tempfile.TemporaryDirectory(prefix="tamiz-delivery.") as name:
        folder, topic = pathlib.Path(name), "delivery"
        feed = fill(folder, topic, options.posts)
        print("delivery: filled", feed, flush=True)
        runs = {}
        for round_number in range(options.rounds):
            for label, run in [
                *((f"{n} worker{'s' * (n > 1)}", lambda n=n: workers(folder, topic, n, round_number)) for n in (1, 2, 4)),
                *((f"plain Python, {form}", lambda form=form: consumer(folder, topic, form)) for form in ("bare", "working")),
            ]:
                one = run()
                one["posts_per_second"] = round(options.posts / one["seconds"])
                if one["rows"] != options.posts or one.get("ids", options.posts) != options.posts:
                    raise SystemExit(f"delivery: {label}: {one} of {options.posts} posts")
                print(f"delivery: {label}: {one}", flush=True)
                runs.setdefault(label, []).append(one)
    save("delivery.json", {**about(), "command": "scripts/delivery throughput", "feed": feed, "runs": runs})


def sample(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    files = len(os.listdir(f"/proc/{process.pid}/fd"))
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024, files


def slope(points):
    """Least squares: change of the second per hour of the first (seconds)."""
    if len(points) < 3:
        return None
    return statistics.linear_regression([x / 3600 for x, _ in points], [y for _, y in points]).slope


def soak(options):
    with tempfile.TemporaryDirectory(prefix="tamiz-soak.") as name:
        folder, topic = pathlib.Path(name), "soak"
        make_topic(topic)
        count = int(options.rate * options.minutes * 60)
        feed = folder / "posts.jsonl"
        with open(feed, "wb") as out:
            subprocess.run([sys.executable, str(HERE / "feed.py"), str(count)], stdout=out, check=True)
        extra = "flush_seconds = 5\n[log]\nlevel = \"debug\"\nformat = \"json\"\n"
        config = configuration(folder, topic, "soak", extra)
        log = open(folder / "log", "w+")
        arguments = ["run", "-c", config] + ([] if options.model else ["--no-model"])
        worker = subprocess.Popen([*TAMIZ, *arguments], stderr=log, stdout=subprocess.DEVNULL)
        quiet = configuration(folder, topic, "feeder")
        feeder = subprocess.Popen([*TAMIZ, "produce", "-c", quiet, "--topic", topic, "--rate", str(options.rate), str(feed)], stderr=subprocess.DEVNULL)
        begun, samples = time.monotonic(), []
        while feeder.poll() is None and worker.poll() is None:
            samples.append((time.monotonic() - begun, *sample(worker)))
            time.sleep(5)
        time.sleep(15)
        if worker.poll() is not None:
            log.seek(0)
            raise SystemExit(f"soak: the worker ended by itself:\n{log.read()[-4000:]}")
        worker.send_signal(signal.SIGTERM)
        worker.wait()
        feeder.wait()
        log.seek(0)
        commits = [json.loads(line) for line in log if '"committed"' in line]
        rows, different = counted(folder / "soak" / "posts")
    first = datetime.datetime.fromisoformat(commits[0]["timestamp"])
    times = [((datetime.datetime.fromisoformat(one["timestamp"]) - first).total_seconds(), one["fields"]["seconds"]) for one in commits]
    warm = [point for point in samples if point[0] > 300] or samples
    outcome = {
        **about(),
        "command": f"scripts/delivery soak --minutes {options.minutes:g} --rate {options.rate}" + (" --model" if options.model else ""),
        "posts": count,
        "rows": rows,
        "ids": different,
        "commits": len(commits),
        "commit_seconds_median": statistics.median(seconds for _, seconds in times),
        "commit_seconds_longest": max(seconds for _, seconds in times),
        "commit_seconds_per_hour": slope(times),
        "memory_first": warm[0][1],
        "memory_last": warm[-1][1],
        "memory_highest": max(point[1] for point in samples),
        "memory_bytes_per_hour": slope([(at, memory) for at, memory, _ in warm]),
        "files_lowest": min(point[2] for point in warm),
        "files_highest": max(point[2] for point in warm),
        "files_per_hour": slope([(at, files) for at, _, files in warm]),
        "samples": [(round(at), memory, files) for at, memory, files in samples[:: max(1, len(samples) // 120)]],
    }
    print({key: value for key, value in outcome.items() if key != "samples"})
    save("soak.json", outcome)


def about():
    names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "machine": f"{names[0] if names else platform.machine()}, {len(names)} threads, {platform.system()} {platform.release()}",
        "date": datetime.date.today().isoformat(),
        "commit": commit or "unknown",
    }


def save(name, outcome):
    (RESULTS / name).write_text(json.dumps(outcome, indent=1) + "\n")
    lines = ["# Kafka to table", "", "Written by `scripts/delivery`. The broker, the workers and whatever feeds them share this machine's cores.", ""]
    if (RESULTS / "delivery.json").exists():
        lines += throughput_table(json.loads((RESULTS / "delivery.json").read_text()))
    if (RESULTS / "soak.json").exists():
        lines += soak_table(json.loads((RESULTS / "soak.json").read_text()))
    (RESULTS / "delivery.md").write_text("\n".join(lines) + "\n")


def throughput_table(outcome):
    feed, runs = outcome["feed"], outcome["runs"]
    middle = {label: statistics.median(run["posts_per_second"] for run in one) for label, one in runs.items()}
    lines = [
        f"## {feed['posts']:,} posts of {feed['bytes_per_post']:.0f} bytes in {PARTITIONS} partitions",
        "",
        f"`{outcome['command']}`: from the start of the processes to the end of the last, everything included. In turns, {len(next(iter(runs.values())))}",
        "rounds; the median, and all values. No model; every other stage is on. Every run had every post, none twice.",
        "",
        "| who | posts/s | all rounds | times plain Python, bare / working | commits | conflicts | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, one in runs.items():
        ratio = " / ".join(f"{middle[label] / middle[f'plain Python, {form}']:.1f}" for form in ("bare", "working"))
        counts = [sorted(run.get(key, 0) for run in one) if key in one[0] else None for key in ("commits", "conflicts")]
        told = ["-" if count is None else f"{count[0]} to {count[-1]}" for count in counts]
        every = ", ".join(f"{run['posts_per_second']:,}" for run in one)
        memory = max(run["memory_bytes"] for run in one) / 1e6
        lines.append(f"| {label} | {middle[label]:,.0f} | {every} | {ratio} | {told[0]} | {told[1]} | {memory:.0f} |")
    return [*lines, "", f"Measured {outcome['date']} at {outcome['commit']} on {outcome['machine']}.", ""]


def soak_table(outcome):
    change = lambda key, unit, scale=1.0: "too short" if outcome[key] is None else f"{outcome[key] / scale:+.3g} {unit} an hour"
    return [
        "## A steady feed",
        "",
        f"`{outcome['command']}`: {outcome['posts']:,} posts, {outcome['rows']:,} rows with {outcome['ids']:,} different ids, {outcome['commits']} commits.",
        "Slopes are least squares, those of memory and files without the first five minutes.",
        "",
        "| | lowest or first | highest | slope |",
        "|---|---|---|---|",
        f"| resident memory, MB | {outcome['memory_first'] / 1e6:.0f} | {outcome['memory_highest'] / 1e6:.0f} | {change('memory_bytes_per_hour', 'MB', 1e6)} |",
        f"| seconds of a commit | {outcome['commit_seconds_median']:.3f} (median) | {outcome['commit_seconds_longest']:.3f} | {change('commit_seconds_per_hour', 's')} |",
        f"| open files | {outcome['files_lowest']} | {outcome['files_highest']} | {change('files_per_hour', 'files')} |",
        "",
        f"Measured {outcome['date']} at {outcome['commit']} on {outcome['machine']}.",
        "",
    ]


def main():
    parser = argparse.ArgumentParser(prog="scripts/delivery")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("throughput")
    command.add_argument("--posts", type=int, default=1_000_000)
    command.add_argument("--rounds", type=int, default=3)
    command.set_defaults(run=throughput)
    command = commands.add_parser("soak")
    command.add_argument("--minutes", type=float, default=60)
    command.add_argument("--rate", type=int, default=2_000)
    command.add_argument("--model", action="store_true", help="score the posts as well")
    command.set_defaults(run=soak)
    options = parser.parse_args()
    options.run(options)


main()
