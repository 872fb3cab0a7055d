#!/usr/bin/env python3
"""Times pulls and pushes of ibid beside those of Docker, Podman and skopeo, with a registry on this machine.

    cargo build --release && bench/registry.py

The image has 6 layers of together 30,000 files and 500 MB; `--files` and `--megabytes` make it smaller. Contestants take
turns as in run.py. A pull starts from an empty store and ends when the image is ready to run; a push with nothing present
goes to a registry that was just started, one with all present to one that has the image. Everything is made under one
temporary folder, apart from the image in the Docker engine, and is removed at the end.

Peers, all Debian packages: docker.io (with dockerd running), podman, skopeo, umoci. The registry: docker-registry.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from run import Contestant, Report, Unavailable, contest, high_water, newest_build, program, run, say

LAYERS = 6
MEMORY_MIB_MAX = 100


class Registry:
    """Debian's registry on a port of its own, with a folder of its own."""

    def __init__(self, folder):
        folder.mkdir()
        configuration = folder / "registry.yml"
        configuration.write_text(
            "version: 0.1\nlog: {level: info}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n"
        )
        self.process = subprocess.Popen(
            [program("docker-registry"), "serve", configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            if "listening on " in line:
                self.host = "localhost:" + line.split("listening on ")[1].split('"')[0].rsplit(":", 1)[1].strip()
                break
        else:
            raise Unavailable("docker-registry did not start")
        # What it writes must go somewhere, or it would wait.
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()

    def stop(self):
        self.process.kill()
        self.process.wait()


class Bench:
    def __init__(self, ibid, folder, turns, files, megabytes):
        self.ibid, self.folder, self.turns = ibid, folder, turns
        self.files, self.megabytes = files, megabytes
        self.env = {"XDG_DATA_HOME": str(folder / "share")}
        self.report = Report()
        self.registries, self.docker_tags = [], []
        self.gzip, self.zstd = None, None

    def registry(self, name):
        registry = Registry(self.folder / name)
        self.registries.append(registry)
        return registry

    def make_image(self):
        """Files as programs have them: half of each is text that compresses, half is noise."""
        say(f"making an image of {self.files} files and {self.megabytes} MB")
        project = self.folder / "project"
        project.mkdir()
        noise = random.Random(1)
        size = max(self.megabytes * 1_000_000 // self.files, 2)
        for number in range(self.files):
            path = project / f"layer-{number % LAYERS}" / f"folder-{number // LAYERS % 100}" / f"file-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (f"line of the file {number}\n" * (size // 40 + 1)).encode()[: size // 2]
            path.write_bytes(text + noise.randbytes(size - size // 2))
        copies = "".join(f"COPY layer-{layer} /layer-{layer}\n" for layer in range(LAYERS))
        (project / "Dockerfile").write_text(f"FROM scratch\n{copies}CMD [\"/true\"]\n")
        (project / "ibid.toml").write_text('name = "bench"\n')
        host = self.registry("registry").host
        self.gzip, self.zstd = f"{host}/bench:gzip", f"{host}/bench:zstd"
        for reference, compression in [(self.gzip, "gzip"), (self.zstd, "zstd")]:
            run(self.ibid, "-C", project, "build", "--tag", reference, env=self.env)
            run(self.ibid, "push", "--compression", compression, reference, env=self.env)

    def docker(self):
        client = "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else program("docker")
        run(client, "info")
        return client

    def podman(self, store):
        """The command's start, with storage of its own."""
        root = self.folder / store
        driver = ["--root", root / "root", "--runroot", root / "run", "--cgroup-manager", "cgroupfs"]
        return [program("podman"), *driver]

    @staticmethod
    def available(name, make):
        try:
            return Contestant(name, make())
        except (Unavailable, OSError) as error:
            contestant = Contestant(name, lambda number: [])
            contestant.why = str(error)
            return contestant

    # The rows.

    def pull(self):
        def ibid(reference, name):
            def prepare(number):
                # Another folder each time: making files where others were just removed is slow on ext4.
                return ["env", f"XDG_DATA_HOME={self.folder / f'{name}-{number}'}", self.ibid, "pull", reference]

            return lambda: prepare

        def docker():
            client = self.docker()
            self.docker_tags.append(self.gzip)

            def prepare(_):
                subprocess.run([client, "image", "rm", "--force", self.gzip], capture_output=True, check=False)
                return [client, "pull", "--quiet", self.gzip]

            return prepare

        def podman():
            program("podman")
            return lambda number: [*self.podman(f"podman-{number}"), "pull", "--tls-verify=false", self.gzip]

        def skopeo():
            copy, unpack = program("skopeo"), program("umoci")

            def prepare(number):
                to = self.folder / f"skopeo-{number}"
                script = (
                    f"{copy} --insecure-policy copy --src-tls-verify=false docker://{self.gzip} oci:{to}:bench && "
                    f"{unpack} unpack --image {to}:bench {to}-bundle"
                )
                return ["sh", "-ec", script]

            return prepare

        gzip = self.available("ibid pull", ibid(self.gzip, "pull-gzip"))
        zstd = self.available("ibid pull, zstd", ibid(self.zstd, "pull-zstd"))
        peers = [
            self.available("docker pull", docker),
            self.available("podman pull", podman),
            self.available("skopeo copy + umoci unpack", skopeo),
        ]
        contest("pull", [gzip, zstd, *peers], self.turns(5), warm_ups=1)
        self.report.add("pull, gzip layers", gzip, peers, {"docker pull": 1 / 2, "podman pull": 1 / 2})
        self.report.add("pull, zstd layers; peers have gzip", zstd, peers[:1], {"docker pull": 1 / 3})

    def push(self):
        def targets(name, prepare_image):
            """Pushes to new registries, and again to the same ones."""
            hosts = {}

            def first(number):
                hosts[number] = self.registry(f"{name}-{number}").host
                return prepare_image(f"{hosts[number]}/bench:1")

            def again(number):
                return prepare_image(f"{hosts[number]}/bench:1")

            return first, again

        def ibid():
            def prepare(reference):
                project = self.folder / "project"
                run(self.ibid, "-C", project, "build", "--tag", reference, env=self.env)
                return ["env", f"XDG_DATA_HOME={self.env['XDG_DATA_HOME']}", self.ibid, "push", reference]

            return targets("push-ibid", prepare)

        def docker():
            client = self.docker()
            run(client, "pull", "--quiet", self.gzip)
            self.docker_tags.append(self.gzip)

            def prepare(reference):
                run(client, "tag", self.gzip, reference)
                self.docker_tags.append(reference)
                return [client, "push", "--quiet", reference]

            return targets("push-docker", prepare)

        def podman():
            command = self.podman("podman-push")
            run(*command, "pull", "--tls-verify=false", self.gzip)
            push = [*command, "push", "--tls-verify=false", self.gzip]
            return targets("push-podman", lambda reference: [*push, reference])

        first, again = [], []
        for name, make in [("ibid push", ibid), ("docker push", docker), ("podman push", podman)]:
            both = {}

            def made(make=make, both=both):
                both["first"], both["again"] = make()
                return both["first"]

            first.append(self.available(name, made))
            again.append(self.available(name, lambda both=both: both.get("again", lambda number: [])))
            again[-1].why = first[-1].why
        turns = self.turns(5)
        contest("push, nothing present", first, turns, warm_ups=0)
        contest("push, all present", again, turns, warm_ups=0)
        self.report.add("push, nothing present", first[0], first[1:], {"docker push": 1 / 2})
        self.report.add("push, all present", again[0], again[1:], {"docker push": 1 / 5})

    def memory(self):
        for name, command in [
            ("ibid pull", [self.ibid, "pull", self.gzip]),
            ("ibid push", [self.ibid, "push", self.gzip.replace(":gzip", ":memory")]),
        ]:
            env = dict(self.env)
            if name == "ibid pull":
                env["XDG_DATA_HOME"] = str(self.folder / "pull-memory")
            else:
                # A registry, and a compression, that nothing is known of.
                host = self.registry("memory").host
                reference = f"{host}/bench:1"
                run(self.ibid, "-C", self.folder / "project", "build", "--tag", reference, env=env)
                command = [self.ibid, "push", reference]
            self.peak(name, command, env)

    def peak(self, name, command, env):
        """Adds the line of most memory that all processes of ibid have at a time."""
        binary, peak = os.stat(self.ibid), 0
        with subprocess.Popen([str(word) for word in command], env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                total = 0
                for status in Path("/proc").glob("[0-9]*/status"):
                    try:
                        if os.path.samestat(os.stat(status.with_name("exe")), binary):
                            total += high_water(status.read_text())
                    except OSError:
                        continue  # it ended meanwhile
                peak = max(peak, total)
        if process.returncode != 0:
            self.report.line("memory", name, f"exit status {process.returncode}", f"{MEMORY_MIB_MAX} MiB", False)
            return
        self.report.line("memory", name, f"{peak / 1024:.0f} MiB", f"{MEMORY_MIB_MAX} MiB", peak <= MEMORY_MIB_MAX * 1024)

    ROWS = ("pull", "push", "memory")

    def clean_up(self):
        for registry in self.registries:
            registry.stop()
        for tag in dict.fromkeys(self.docker_tags):
            subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these rows: {', '.join(Bench.ROWS)}")
    parser.add_argument("--ibid", type=Path, help="binary to time [default: the release build of this checkout]")
    parser.add_argument("--rounds", type=int, help="turns of each contestant [default: 5]")
    parser.add_argument("--files", type=int, default=30_000, help="files of the image [default: 30000]")
    parser.add_argument("--megabytes", type=int, default=500, help="size of the image [default: 500]")
    parser.add_argument("--folder", type=Path, help="where to work [default: /var/tmp]", default=Path("/var/tmp"))
    arguments = parser.parse_args()
    for row in arguments.rows:
        if row not in Bench.ROWS:
            parser.error(f"no row {row!r}; there are {', '.join(Bench.ROWS)}")
    ibid = arguments.ibid or newest_build(parser)
    folder = Path(tempfile.mkdtemp(prefix="ibid-bench-", dir=arguments.folder))
    bench = Bench(
        ibid.resolve(), folder, lambda usual: arguments.rounds or usual, arguments.files, arguments.megabytes
    )
    try:
        bench.make_image()
        for row in Bench.ROWS:
            if not arguments.rows or row in arguments.rows:
                getattr(bench, row)()
    finally:
        bench.clean_up()
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            say(f"{folder} could not be removed whole")
    bench.report.print()
    return 1 if bench.report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
