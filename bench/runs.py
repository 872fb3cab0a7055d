#!/usr/bin/env python3
"""Times `ibid runs` over many runs, beside reading the same table from a bare SQLite file, and MLflow's where it is installed.

    cargo build --release && bench/runs.py [--runs 10000]

Contestants take turns as in run.py. The ledger is written by hand, in the format that a run writes; nothing is executed.
`first` is `ibid runs` without its index, which then has to read every record.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import newest_build

TURNS = 9


def digest(letter):
    return "sha256:" + letter * 64


def record(number, identifier):
    ok = number % 7 != 0
    learning_rate = str(number / 1000)
    started = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(1_770_000_000 + number * 60))
    return {
        "schema": 1,
        "ibid": "0.1.0",
        "id": identifier,
        "status": "ok" if ok else "failed",
        "started": started,
        "ended": started,
        "seconds": 60.0,
        "exit_code": 0 if ok else 1,
        "command": ["python3", "train.py", "--learning-rate", learning_rate],
        "arguments": ["--learning-rate", learning_rate],
        "parameters": {"learning_rate": learning_rate, "n_epochs": "5", "seed": str(number % 3), "optimizer": "adam"},
        "image": {"digest": digest("a"), "tags": ["mnist:latest"], "layers": [digest("b"), digest("c")]},
        "code": {"mode": "mounted", "snapshot": digest("d"), "commit": "1" * 40, "branch": "main", "differing": []},
        "env": {},
        "mounts": [{"source": ".", "target": "/code", "read_only": False}],
        "data": [],
        "host": {
            "name": "lab", "user": "ann", "uid": 1000, "architecture": "x86_64", "kernel": "6.1.0-18-amd64",
            "cpu": "AMD EPYC 7763", "cpus": 16, "memory": 64 << 30, "engine": "native",
        },
        "usage": {"peak_memory": 123456789, "cpu_seconds": 55.5},
        "outputs": [{"path": f"output/model{n}.npz", "bytes": 1000000, "digest": digest("2")} for n in range(4)],
        "metrics": {
            name: {"last": random.random(), "min": 0.1, "max": 3.0, "count": 5, "source": "output/metrics.jsonl"}
            for name in ("accuracy", "loss")
        },
    }


def write_ledger(project, count):
    """The records, an hour old: an index distrusts younger ones."""
    (project / "Dockerfile").write_text("FROM scratch\n")
    records = []
    then = time.time() - 3600
    for number in range(count):
        identifier = f"{random.getrandbits(48):012x}"
        folder = project / ".ibid/runs" / identifier
        folder.mkdir(parents=True)
        records.append(record(number, identifier))
        path = folder / "record.json"
        path.write_text(json.dumps(records[-1], indent=2))
        os.utime(path, (then, then))
        os.utime(folder, (then, then))
    return records


def write_sqlite(path, records):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (id, started, status, code, lr, epochs, seed, optimizer, accuracy, loss)")
        rows = (
            (
                r["id"], r["started"], r["status"], r["exit_code"], *r["parameters"].values(),
                r["metrics"]["accuracy"]["last"], r["metrics"]["loss"]["last"],
            )
            for r in records
        )
        connection.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def log_to_mlflow(folder, records):
    """Runs in an MLflow store of SQLite, and the command that lists them; none without MLflow."""
    try:
        import mlflow
    except ImportError:
        return None
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.tracking.MlflowClient(uri)
    experiment = client.create_experiment("bench")
    for one in records:
        run = client.create_run(experiment)
        client.log_batch(
            run.info.run_id,
            metrics=[mlflow.entities.Metric(name, metric["last"], 0, 0) for name, metric in one["metrics"].items()],
            params=[mlflow.entities.Param(name, value) for name, value in one["parameters"].items()],
        )
    return [
        sys.executable, "-c",
        f"import mlflow; mlflow.set_tracking_uri({uri!r}); "
        f"print(mlflow.search_runs(['{experiment}'], max_results={len(records)}).to_string())",
    ]


def seconds(command, environment):
    start = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--ibid", type=Path, help="the binary [default: the newest build]")
    parser.add_argument("--mlflow", action="store_true", help="compare with MLflow, whose store takes minutes to fill")
    arguments = parser.parse_args()
    ibid = arguments.ibid or newest_build(parser)
    random.seed(1)
    with tempfile.TemporaryDirectory(prefix="ibid-bench-") as name:
        folder = Path(name)
        project = folder / "project"
        project.mkdir()
        cache = folder / "cache"
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        records = write_ledger(project, arguments.runs)
        write_sqlite(folder / "bare.sqlite", records)
        runs = [ibid, "-C", project, "runs"]
        contestants = {
            "ibid runs": runs,
            "ibid runs --filter": [*runs, "--filter", "learning_rate>0.1 and status==ok"],
            "ibid runs, no index": runs,
        }
        if shutil.which("sqlite3"):
            contestants["sqlite3, bare"] = ["sqlite3", folder / "bare.sqlite", "SELECT * FROM runs ORDER BY started DESC"]
        listing = log_to_mlflow(folder, records) if arguments.mlflow else None
        if listing:
            contestants["mlflow search_runs"] = listing
        times = {contestant: [] for contestant in contestants}
        seconds(runs, environment)
        for _ in range(TURNS):
            for contestant, command in contestants.items():
                if contestant.endswith("no index"):
                    shutil.rmtree(cache)
                times[contestant].append(seconds(command, environment))
        own = sorted(times["ibid runs"])[TURNS // 2]
        print(f"{arguments.runs} runs, medians of {TURNS} turns")
        for contestant, measured in times.items():
            measured.sort()
            median = measured[TURNS // 2]
            print(
                f"{contestant:22} {median * 1000:8.1f} ms  {measured[0] * 1000:8.1f} to {measured[-1] * 1000:.1f}"
                f"  {median / own:6.2f} × ibid runs"
            )


if __name__ == "__main__":
    main()
