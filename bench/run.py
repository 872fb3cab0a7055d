#!/usr/bin/env python3
"""Times ibid beside the tools that people use today, one after the other in turns, and prints medians and ratios.

    cargo build --release && bench/run.py

A row's contestants take turns, so that a slow spell of the machine hits them alike; ratios are between medians of one
row. Every contestant does the same work on the same base, which ibid makes from Debian's packages. A peer that is not
installed or does not work here is a line that says why. Everything is made under one temporary folder, apart from images
named ibid-bench-* in the Docker engine, and is removed at the end.

start.py does the same for the start of containers.

Peers, all Debian packages: docker.io (with dockerd running), buildah, podman, mmdebstrap.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = "debian:bookworm-slim"
BENCH_BASE = "ibid-bench-base"
CONTEXT_FILES = 10_000
LARGE_CONTEXT_FILES = 50_000
IGNORED_FILES, IGNORED_BYTES = 100_000, 5 << 30
TREE_FILES, TREE_BYTES = 30_000, 500 << 20
STEPS_AT_ALL = 12
BURN_SECONDS = 5
FOLDERS = 100
# Debian's buildah asks for more open files than some hosts grant.
BUILDAH_LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]


class Unavailable(Exception):
    """Why a contestant cannot take part."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command, cwd=None, env=None, stdin=None):
    """Runs a command to its end; its failure is the contestant's."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    except OSError as error:
        raise Unavailable(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"{Path(str(command[0])).name} exited with {done.returncode}: {said[-1][:300]}")
    return done.stdout


def program(name):
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is not installed")
    return found


class Contestant:
    """One column of a row. `prepare` runs before each turn, untimed, and returns the command to time."""

    def __init__(self, name, prepare, env=None, cwd=None):
        self.name, self.prepare, self.env, self.cwd = name, prepare, {**os.environ, **(env or {})}, cwd
        self.seconds, self.why = [], None

    def turn(self, number, count):
        if self.why is not None:
            return
        try:
            command = [str(word) for word in self.prepare(number)]
            with tempfile.TemporaryFile() as said:
                actions = [
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, said.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, said.fileno(), 2),
                ]
                before = os.getcwd()
                os.chdir(self.cwd or before)
                try:
                    started = time.perf_counter()
                    child = os.posix_spawnp(command[0], command, self.env, file_actions=actions)
                    _, status = os.waitpid(child, 0)
                    seconds = time.perf_counter() - started
                finally:
                    os.chdir(before)
                if status != 0:
                    said.seek(0)
                    lines = said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
                    raise Unavailable(f"exit status {os.waitstatus_to_exitcode(status)}: {lines[-1][:300]}")
        except (Unavailable, OSError) as error:
            self.why = str(error)
            return
        if count:
            self.seconds.append(seconds)

    def median(self):
        return statistics.median(self.seconds) if self.seconds else None


def contest(title, contestants, turns, warm_ups):
    """Gives every contestant its turns, each round starting with another one.

    What one has written is on the disk before the next one's turn, so that nobody pays for another's work.
    """
    for number in range(warm_ups + turns):
        say(f"{title}: round {number + 1} of {warm_ups + turns}")
        for place in range(len(contestants)):
            os.sync()
            contestants[(place + number) % len(contestants)].turn(number, count=number >= warm_ups)


def shown(seconds):
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


class Report:
    """A table, each row of which is printed as soon as it is known."""

    HEAD = ("what", "contestant", "median (least – most)", "ibid : peer", "goal", "")

    def __init__(self):
        self.rows, self.missed = 0, 0

    def add(self, title, ibid, peers, goals):
        """`goals` maps a peer's name to the largest ratio allowed."""
        mine = ibid.median()
        self.missed += mine is None
        self.print(title, ibid.name, self.cell(ibid), "", "", "")
        for peer in peers:
            theirs, goal = peer.median(), goals.get(peer.name)
            ratio = verdict = ""
            if mine is not None and theirs is not None:
                ratio = f"1/{theirs / mine:.1f}" if theirs >= mine else f"{mine / theirs:.1f}"
                if goal is not None:
                    met = mine <= goal * theirs
                    self.missed += not met
                    verdict = "met" if met else "MISSED"
            allowed = "" if goal is None else f"1/{1 / goal:.0f}" if goal <= 0.5 else f"{goal:.2f}"
            self.print("", peer.name, self.cell(peer), ratio, allowed, verdict)

    @staticmethod
    def cell(contestant):
        if contestant.median() is None:
            return f"not available: {contestant.why}"
        low, high = min(contestant.seconds), max(contestant.seconds)
        return f"{shown(contestant.median())}  ({shown(low)} – {shown(high)}, n = {len(contestant.seconds)})"

    def line(self, title, name, value, goal, met):
        self.missed += not met
        self.print(title, name, value, "", goal, "met" if met else "MISSED")

    def print(self, *row):
        if self.rows == 0:
            print("| " + " | ".join(self.HEAD) + " |")
            print("|" + "---|" * len(self.HEAD))
        self.rows += 1
        print("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |", flush=True)


class Bench:
    def __init__(self, ibid, folder, turns):
        self.ibid, self.folder, self.turns = ibid, folder, turns
        self.store = folder / "share"
        self.env = {"XDG_DATA_HOME": str(self.store)}
        self.report = Report()
        self.images = []
        self._base = None
        # What the base of every project is made from, so that none has to ask the mirror.
        self.lock = None

    # What several rows need, made once.

    def base_archive(self):
        """The base as ibid makes it: a project that uses it, and a Docker archive of it."""
        if self._base is None:
            say("making the base")
            project = self.project("base", "")
            run(self.ibid, "-C", project, "build", env=self.env)
            archive = self.folder / "base.tar"
            run(self.ibid, "-C", project, "save", BASE, "-o", archive, env=self.env)
            self.lock = (project / "ibid.lock").read_text()
            self._base = archive
        return self._base

    def rootfs(self):
        """The base unpacked into a folder."""
        rootfs = self.folder / "rootfs"
        if not rootfs.exists():
            archive = self.base_archive()
            unpacked = self.folder / "unpacked"
            unpacked.mkdir()
            run("tar", "--extract", "--file", archive, "--directory", unpacked)
            partial = self.folder / "rootfs.partial"
            partial.mkdir()
            for image in json.loads((unpacked / "manifest.json").read_text()):
                for layer in image["Layers"]:
                    run("tar", "--extract", "--numeric-owner", "--file", unpacked / layer, "--directory", partial)
            partial.rename(rootfs)
        return rootfs

    def docker(self):
        """Debian's client, which has BuildKit built in, or another with the buildx plug-in; and the base in the engine."""
        program("dockerd")
        client = "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else program("docker")
        run(client, "info")
        if BENCH_BASE not in self.images:
            tar = self.folder / "rootfs.tar"
            if not tar.exists():
                run("tar", "--create", "--numeric-owner", "--file", tar, "--directory", self.rootfs(), ".")
            run(client, "import", tar, BENCH_BASE)
            self.images.append(BENCH_BASE)
        return client

    def buildah(self):
        """The command's start, with storage of its own that has the base."""
        storage = self.folder / "buildah"
        command = [program("buildah"), "--root", storage / "root", "--runroot", storage / "run"]
        if not storage.exists():
            run(*command, "pull", f"docker-archive:{self.base_archive()}")
            names = json.loads(run(*command, "images", "--json"))
            run(*command, "tag", names[0]["id"], BENCH_BASE)
        return command

    def project(self, name, dockerfile, files=0, packages=("ca-certificates",)):
        """A project of `files` small files under version control, whose Dockerfile starts from the base."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "Dockerfile").write_text(f"FROM {BASE}\n{dockerfile}")
        # The same for peers, whose base is known by another name. Outside the context, so that the contexts are equal.
        self.peer_dockerfile(folder).write_text(f"FROM {BENCH_BASE}\n{dockerfile}")
        (folder / "ibid.toml").write_text(
            f'name = "ibid-bench-{name}"\n[base."{BASE}"]\nsuite = "bookworm"\npackages = {json.dumps(list(packages))}\n'
        )
        (folder / ".dockerignore").write_text(".git\nibid.lock\n")
        if self.lock is not None and list(packages) == ["ca-certificates"]:
            (folder / "ibid.lock").write_text(self.lock)
        for number in range(files):
            path = folder / f"folder-{number % FOLDERS}" / f"file-{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{name}: {number}\n" * 40)
        git = ["git", "-C", folder, "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        run(*git, "init", "--quiet")
        run(*git, "add", "--all")
        run(*git, "commit", "--quiet", "--message", "bench")
        return folder

    def peer_dockerfile(self, project):
        return project.with_name(project.name + ".Dockerfile")

    @staticmethod
    def available(name, make, env=None, cwd=None):
        """A contestant whose set-up is done by `make`, which returns what prepares a turn."""
        try:
            return Contestant(name, make(), env, cwd)
        except (Unavailable, OSError) as error:
            contestant = Contestant(name, lambda number: [], env, cwd)
            contestant.why = str(error)
            return contestant

    # The rows.

    STEPS = "RUN echo one > /one\nRUN echo two > /two\nRUN echo three > /three\nCOPY . /context\n"

    def rebuild(self):
        """A build of 10,000 files in which nothing is new."""
        self.rebuild_of("rebuild", CONTEXT_FILES, {"BuildKit": 1 / 8, "buildah --layers": 1 / 20})

    def rebuild_large(self):
        """The same of 50,000 files."""
        self.rebuild_of("rebuild-large", LARGE_CONTEXT_FILES, {"BuildKit": 1 / 8})

    def rebuild_of(self, name, files, goals):
        project = self.project(name, self.STEPS, files)

        def ibid():
            run(self.ibid, "-C", project, "build", env=self.env)
            return lambda number: [self.ibid, "-C", project, "build"]

        mine = self.available("ibid build", ibid, self.env)
        peers = self.build_peers(lambda number: project)
        contest(name, [mine, *peers], self.turns(15), warm_ups=1)
        self.report.add(f"rebuild, nothing changed, {files:,} files", mine, peers, goals)

    def one_file(self):
        """A build of 10,000 files of which one has changed."""
        project = self.project("one-file", self.STEPS, CONTEXT_FILES)
        changes = 0

        def change():
            nonlocal changes
            changes += 1
            (project / "folder-7" / "file-7.txt").write_text(f"changed {changes}\n")

        def ibid():
            run(self.ibid, "-C", project, "build", env=self.env)

            def prepare(number):
                change()
                return [self.ibid, "-C", project, "build"]

            return prepare

        def changed(number):
            change()
            return project

        mine = self.available("ibid build", ibid, self.env)
        peers = self.build_peers(changed)
        contest("one-file", [mine, *peers], self.turns(7), warm_ups=1)
        self.report.add("one file of 10,000 changed", mine, peers, {"BuildKit": 1 / 4})

    def ignored(self):
        """A build whose context has 5 GB and 100,000 files that are ignored, beside one without them."""
        without, among = self.project("without", self.STEPS, CONTEXT_FILES), self.project("among", self.STEPS, CONTEXT_FILES)
        say("ignored: making the files")
        for number in range(IGNORED_FILES):
            path = among / "data" / f"folder-{number % FOLDERS}" / f"file-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        with open(among / "data" / "large", "wb") as large:
            large.truncate(IGNORED_BYTES)
        (among / ".dockerignore").write_text(".git\nibid.lock\ndata\n")

        def build(project):
            run(self.ibid, "-C", project, "build", env=self.env)
            return lambda number: [self.ibid, "-C", project, "build"]

        mine = self.available("ibid build, among 100,000 files of 5 GB that are ignored", lambda: build(among), self.env)
        peers = [self.available("ibid build, without them", lambda: build(without), self.env)]
        contest("ignored", [mine, *peers], self.turns(40), warm_ups=2)
        self.report.add("rebuild, nothing changed, 10,000 files", mine, peers, {"ibid build, without them": 1.05})

    def steps(self):
        """Twelve steps of a few milliseconds, nothing cached."""
        projects = {}

        def project(number):
            if number not in projects:
                lines = [f"RUN : {number}; echo {step} > /step-{step}\n" for step in range(STEPS_AT_ALL)]
                projects[number] = self.project(f"steps-{number}", "".join(lines))
            return projects[number]

        def ibid():
            self.base_archive()
            return lambda number: [self.ibid, "-C", project(number), "build"]

        mine = self.available("ibid build", ibid, self.env)
        peers = self.build_peers(project)
        contest("steps", [mine, *peers], self.turns(7), warm_ups=1)
        self.report.add("12 steps, uncached", mine, peers, {"BuildKit": 1 / 4, "buildah --layers": 1 / 8})

    def stages(self):
        """Two independent stages that each burn one processor for 5 s, beside the same in one stage."""
        self.base_archive()

        def loop(count):
            # In one process, so that it takes one processor.
            return f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); done"

        sample = 2_000_000
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            run("sh", "-c", loop(sample))
            seconds.append(time.perf_counter() - started)
        count = int(sample * BURN_SECONDS / min(seconds))

        # The two contestants share a store: neither may find what the other has made.
        def burn(turn, place):
            return f"RUN : {turn}; {loop(count)}; echo done > /{place}\n"

        def beside(number):
            turn = f"beside {number}"
            text = f"{burn(turn, 'one')}FROM {BASE}\n{burn(turn, 'two')}COPY --from=0 /one /one\n"
            return [self.ibid, "-C", self.project(f"beside-{number}", text), "build"]

        def one_by_one(number):
            turn = f"one by one {number}"
            text = burn(turn, "one") + burn(turn, "two")
            return [self.ibid, "-C", self.project(f"one-by-one-{number}", text), "build"]

        mine = self.available("ibid build, two stages", lambda: beside, self.env)
        peers = [self.available("ibid build, one stage", lambda: one_by_one, self.env)]
        contest("stages", [mine, *peers], self.turns(3), warm_ups=0)
        self.report.add("two times 5 s of work", mine, peers, {"ibid build, one stage": 0.6})

    def commit(self):
        """A step that makes 500 MB in 30,000 files, beside `cp -a` of them: what is over `cp` is the layer's commit."""
        tree = self.folder / "tree"
        say("commit: making the tree")
        self.tree(tree)
        project = self.project("commit", "COPY tree /tree\n")
        tree.rename(project / "tree")
        tree = project / "tree"
        steps = f"FROM {BASE}\nCOPY tree /tree\n"
        run(self.ibid, "-C", project, "build", env=self.env)

        def ibid(number):
            (project / "Dockerfile").write_text(f"{steps}RUN : {number}; cp -a /tree /copy\n")
            return [self.ibid, "-C", project, "build"]

        def copy(number):
            return ["cp", "-a", tree, self.folder / f"copy-{number}"]

        mine = self.available("ibid build with `RUN cp -a`", lambda: ibid, self.env)
        peer = self.available("cp -a", lambda: copy)
        contest("commit", [mine, peer], self.turns(5), warm_ups=1)
        # The step copies as well: within 1.5 times of `cp` for the commit is within 2.5 times for both.
        self.report.add("`RUN` that makes 500 MB in 30,000 files", mine, [peer], {"cp -a": 2.5})
        self.peak("memory while building that", ["-C", project, "build", "--no-cache"], self.env, 150)

    def build(self):
        """The same with nothing cached: each turn has steps and files of its own."""
        projects = {}

        def project(number):
            if number not in projects:
                steps = self.STEPS.replace("RUN echo", f"RUN : {number}; echo")
                projects[number] = self.project(f"build-{number}", steps, CONTEXT_FILES)
            return projects[number]

        def ibid():
            self.base_archive()
            return lambda number: [self.ibid, "-C", project(number), "build"]

        mine = self.available("ibid build", ibid, self.env)
        peers = self.build_peers(project)
        contest("build", [mine, *peers], self.turns(7), warm_ups=1)
        self.report.add("three `RUN`, `COPY` of 10,000 files, uncached", mine, peers, {"BuildKit": 1 / 3})

    def build_peers(self, project):
        def buildkit():
            client = self.docker()
            self.images.append("ibid-bench-build")
            flags = ["--quiet", "--network", "host", "--tag", "ibid-bench-build"]
            return lambda number: [client, "build", *flags, "--file", self.peer_dockerfile(project(number)), project(number)]

        def buildah():
            command = self.buildah()
            flags = ["bud", "--quiet", "--layers", "--isolation", "chroot", "--network", "host", *BUILDAH_LIMITS]
            flags += ["--tag", "ibid-bench-build"]
            return lambda number: [*command, *flags, "--file", self.peer_dockerfile(project(number)), project(number)]

        return [
            self.available("BuildKit", buildkit, {"DOCKER_BUILDKIT": "1"}),
            self.available("buildah --layers", buildah),
        ]

    def base(self):
        """A base with Python and NumPy from packages that are already on the disk."""
        packages = ["ca-certificates", "python3", "python3-numpy"]

        def ibid():
            project = self.project("numpy", "", packages=packages)
            # Fetches the packages and writes the lock file.
            filled = self.folder / "filled"
            run(self.ibid, "-C", project, "build", env={"XDG_DATA_HOME": str(filled)})
            debs = filled / "ibid" / "debs"
            if not any(debs.glob("*.deb")):
                raise Unavailable(f"the store keeps no packages in {debs}")

            def prepare(number):
                # A store that has the packages and nothing else. The command line names it, because the
                # contestant's environment is the same at every turn.
                store = self.folder / f"numpy-store-{number}"
                run(self.ibid, "images", env={"XDG_DATA_HOME": str(store)})
                (store / "ibid" / "debs").mkdir(exist_ok=True)
                run("cp", "--archive", "--link", f"{debs}/.", store / "ibid" / "debs")
                return ["env", f"XDG_DATA_HOME={store}", self.ibid, "-C", project, "build"]

            return prepare

        def mmdebstrap():
            command = [program("mmdebstrap"), "--quiet", "--variant=essential", f"--include={','.join(packages)}"]
            cache = self.folder / "archives"
            cache.mkdir()
            command += ["--skip=essential/unlink,cleanup/apt", "--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives"]
            sync_out = f"--customize-hook=cp \"$1\"/var/cache/apt/archives/*.deb {cache}"
            run(*command, sync_out, "bookworm", self.folder / "mmdebstrap-filled")
            # The package indexes it fetches again, about a second of its time.
            link = f"--setup-hook=ln {cache}/*.deb \"$1\"/var/cache/apt/archives"
            return lambda number: [*command, link, "bookworm", self.folder / f"mmdebstrap-{number}"]

        mine = self.available("ibid build", ibid)
        peers = [self.available("mmdebstrap", mmdebstrap)]
        contest("base", [mine, *peers], self.turns(5), warm_ups=0)
        self.report.add("base with Python and NumPy, packages downloaded", mine, peers, {"mmdebstrap": 1 / 3})

    def archives(self):
        """An image of 500 MB in 30,000 files to a Docker archive and from it, ready to run, and the memory that takes."""
        project = self.project("archives", "COPY tree /tree\n")
        self.tree(project / "tree")
        image, archive = "ibid-bench-archives", self.folder / "archives.tar"
        run(self.ibid, "-C", project, "build", env=self.env)
        run(self.ibid, "save", image, "-o", archive, env=self.env)
        elsewhere = {"XDG_DATA_HOME": str(self.folder / "elsewhere")}

        def docker():
            client = self.docker()
            run(client, "load", "--input", archive)
            self.images.append(f"{image}:latest")
            return client

        def podman():
            command = [program("podman"), "--root", self.folder / "podman", "--runroot", self.folder / "podman-run"]
            command += ["--cgroup-manager=cgroupfs"]
            run(*command, "load", "--input", archive)
            return command

        # A turn each for a file of its own, so that none has another's pages to overwrite.
        def saving(command, flag):
            return lambda number: [*command, "save", image, flag, self.folder / f"saved-{Path(command[0]).name}-{number}.tar"]

        def docker_load(client):
            def turn(number):
                run(client, "image", "rm", "--force", image)
                return [client, "load", "--input", archive]

            return turn

        def podman_load(command):
            def turn(number):
                run(*command, "image", "rm", "--all", "--force")
                return [*command, "load", "--input", archive]

            return turn

        def ibid_load(number):
            # In its own store each time, which an earlier turn has not filled.
            return ["env", f"XDG_DATA_HOME={elsewhere['XDG_DATA_HOME']}-{number}", self.ibid, "load", "-i", archive]

        mine = self.available("ibid save", lambda: saving([self.ibid], "-o"), self.env)
        peers = [
            self.available("docker save", lambda: saving([docker()], "-o")),
            self.available("podman save", lambda: saving(podman(), "-o")),
        ]
        contest("save", [mine, *peers], self.turns(5), warm_ups=1)
        self.report.add("save 500 MB in 30,000 files to a Docker archive", mine, peers, {"docker save": 1 / 2})
        mine = self.available("ibid load", lambda: ibid_load)
        peers = [
            self.available("docker load", lambda: docker_load(docker())),
            self.available("podman load", lambda: podman_load(podman())),
        ]
        contest("load", [mine, *peers], self.turns(5), warm_ups=1)
        self.report.add("load it, ready to run", mine, peers, {"docker load": 1 / 2})
        self.peak("memory while saving it", ["save", image, "-o", self.folder / "memory.tar"], self.env, 100)
        self.peak("memory while loading it", ["load", "-i", archive], elsewhere, 100)

    def tree(self, tree):
        """A folder with 500 MB in 30,000 files that cannot be compressed."""
        content = os.urandom(1 << 20)
        size = TREE_BYTES // TREE_FILES
        for number in range(TREE_FILES):
            path = tree / f"folder-{number % 300}" / f"file-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            start = number * 7919 % (len(content) - size)
            path.write_bytes(content[start : start + size])

    def memory(self):
        """Memory of all processes of ibid while it builds the sample from nothing."""
        sample = self.folder / "sample"
        shutil.copytree(ROOT / "examples" / "mnist", sample, ignore=shutil.ignore_patterns("output", "data", "ibid.lock"))
        env = {"XDG_DATA_HOME": str(self.folder / "memory-store")}
        self.peak("memory while building the sample", ["-C", sample, "build"], env, 100)

    def peak(self, title, command, env, goal_mib):
        """Adds the line of most memory that all processes of ibid have at a time during a command."""
        say(title)
        contestant = f"ibid {next(word for word in command if word in ('build', 'load', 'save'))}"
        binary = os.stat(self.ibid)
        peak, ended = 0, threading.Event()

        def watch():
            nonlocal peak
            while not ended.wait(0.01):
                total = 0
                for status in Path("/proc").glob("[0-9]*/status"):
                    try:
                        if os.path.samestat(os.stat(status.with_name("exe")), binary):
                            total += high_water(status.read_text())
                    except OSError:
                        continue  # it ended meanwhile
                peak = max(peak, total)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            run(self.ibid, *command, env=env)
        except Unavailable as error:
            self.report.line(title, contestant, f"not available: {error}", f"{goal_mib} MiB", False)
            return
        finally:
            ended.set()
            watcher.join()
        if peak == 0:
            self.report.line(title, contestant, "not available: it was not seen", "", False)
            return
        self.report.line(title, contestant, f"{peak / 1024:.0f} MiB", f"{goal_mib} MiB", peak <= goal_mib * 1024)

    ROWS = (
        "rebuild",
        "rebuild_large",
        "one_file",
        "ignored",
        "build",
        "steps",
        "stages",
        "commit",
        "base",
        "archives",
        "memory",
    )

    def clean_up(self):
        for image in dict.fromkeys(self.images):
            try:
                run("docker", "image", "rm", "--force", image)
            except Unavailable as error:
                say(f"image {image} stays: {error}")


def newest_build(parser):
    """The release build of this checkout."""
    built = [path for path in ROOT.glob("target/**/release/ibid") if os.access(path, os.X_OK)]
    if not built:
        parser.error("no release build here: cargo build --release, or name a binary with --ibid")
    return max(built, key=lambda path: path.stat().st_mtime)


def high_water(status):
    """Most memory that a process has had, in KiB, from its /proc/<id>/status."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def main(kind=None, description=__doc__):
    kind = kind or Bench
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these rows: {', '.join(kind.ROWS)}")
    parser.add_argument("--ibid", type=Path, help="binary to time [default: the release build of this checkout]")
    parser.add_argument("--rounds", type=int, help="turns of each contestant [default: as many as each row needs]")
    parser.add_argument("--folder", type=Path, help="where to work [default: /var/tmp]", default=Path("/var/tmp"))
    arguments = parser.parse_args()
    for row in arguments.rows:
        if row not in kind.ROWS:
            parser.error(f"no row {row!r}; there are {', '.join(kind.ROWS)}")
    ibid = arguments.ibid or newest_build(parser)

    folder = Path(tempfile.mkdtemp(prefix="ibid-bench-", dir=arguments.folder))
    bench = kind(ibid.resolve(), folder, lambda usual: arguments.rounds or usual)
    try:
        bench.base_archive()
        for row in kind.ROWS:
            if not arguments.rows or row in arguments.rows:
                getattr(bench, row)()
    finally:
        bench.clean_up()
        # Folders of a container's other users can only be removed from within ibid's user namespace, or by root.
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            say(f"{folder} could not be removed whole")
    return 1 if bench.report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
