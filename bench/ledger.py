#!/usr/bin/env python3
"""Times the snapshot of a project of 50,000 files in which nothing changed, beside `git status`, and prints the ratio.

    cargo build --release && bench/ledger.py

`ibid -v run` says how long the snapshot took that it waits for; `git status` is timed as a process. Both come in turns, with
everything in memory. A second row has one changed file. Everything is made under one temporary folder and removed at the end,
apart from the image ibid-bench-ledger in your store. Needs git and busybox-static.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import Unavailable, newest_build, program, run, say

FILES = 50_000
FILES_A_FOLDER = 100
IGNORED = "__pycache__/\n*.py[cod]\n*.log\nbuild/\nbusybox\n"


def make_project(folder):
    for number in range(FILES):
        place = folder / f"package{number // (25 * FILES_A_FOLDER)}" / f"part{number // FILES_A_FOLDER % 25}"
        if number % FILES_A_FOLDER == 0:
            place.mkdir(parents=True)
        (place / f"module{number % FILES_A_FOLDER}.py").write_text(f"NUMBER = {number}\n" + "x = 1\n" * 40)
    shutil.copy("/bin/busybox", folder / "busybox")
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/true\nWORKDIR /code\nENTRYPOINT ["/bin/true"]\n')
    (folder / "ibid.toml").write_text('name = "ibid-bench-ledger"\n')
    (folder / ".gitignore").write_text(IGNORED)
    git = [program("git"), "-C", folder, "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    run(*git, "init", "-q")
    run(*git, "add", "-A")
    run(*git, "commit", "-q", "-m", "state")


def snapshot_ms(ibid, folder):
    """How long the snapshot took, as ibid says it."""
    done = subprocess.run([ibid, "-v", "-C", folder, "run"], capture_output=True, text=True, check=False)
    found = re.search(r"snapshot \S+ of (\d+) files in ([0-9.]+) ms", done.stderr)
    if done.returncode != 0 or found is None:
        raise Unavailable(f"ibid run: {done.stderr.strip() or done.returncode}")
    if int(found[1]) < FILES:
        raise Unavailable(f"ibid run: a snapshot of {found[1]} files only")
    return float(found[2])


def status_ms(folder):
    start = time.perf_counter()
    run("git", "-C", folder, "status", "--porcelain")
    return (time.perf_counter() - start) * 1000


def row(title, ibid, folder, turns, between=lambda turn: None):
    snapshots, statuses = [], []
    for turn in range(turns + 2):
        between(turn)
        mine, theirs = snapshot_ms(ibid, folder), status_ms(folder)
        # The first two fill caches.
        if turn >= 2:
            snapshots.append(mine)
            statuses.append(theirs)
    mine, theirs = statistics.median(snapshots), statistics.median(statuses)
    print(f"{title:<34} snapshot {mine:7.1f} ms   git status {theirs:7.1f} ms   ratio {mine / theirs:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ibid", type=Path, help="the binary to time [default: the newest release build here]")
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    ibid = (arguments.ibid or newest_build(parser)).resolve()
    with tempfile.TemporaryDirectory(prefix="ibid-bench-") as folder:
        project = Path(folder) / "project"
        project.mkdir()
        try:
            say(f"making a project of {FILES} files")
            make_project(project)
            # Times of files lie behind, and the first snapshot reads everything.
            time.sleep(1)
            first = snapshot_ms(ibid, project)
            print(f"{'the first, everything read':<34} snapshot {first:7.1f} ms", flush=True)
            row("nothing changed", ibid, project, arguments.turns)

            def edit(turn):
                (project / "package3" / "part3" / "module3.py").write_text(f"NUMBER = 'turn {turn}'\n")

            row("one file changed", ibid, project, arguments.turns, edit)
        except Unavailable as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
