#!/usr/bin/env python3
"""Times the start to exit of `true` in a container, on each level of privilege, beside the tools that people use there.

    cargo build --release && bench/start.py

Levels: `root`; `subids`, the first user of this machine with subordinate ids; `one_id`, a user without them. Only root can become the
latter two. On each, contestants are processes of that user, started by a process of that user. `exec` is another process in a run that
goes on. Contestants take turns as in run.py, whose options these are. An ibid that is not built for speed misses the goals.

Peers, all Debian packages: docker.io (with dockerd running), podman, runc, bubblewrap, charliecloud.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path

from run import BENCH_BASE, Bench, Unavailable, contest, main, program, run

ONE_ID = 64321
# Some machines grant no more than these, which are less than podman asks for.
PODMAN_LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
GOALS = {"bwrap": 1.5, "runc run": 1 / 4, "docker run --rm --net=host": 1 / 20, "podman run --rm --net=host": 1 / 20}
EXEC_SECONDS_MAX = 0.010


class Level:
    """Who starts, and where what is theirs lies."""

    def __init__(self, name, title, uid, gid, user, folder):
        self.name, self.title, self.uid, self.gid, self.user = name, title, uid, gid, user
        self.home = folder / name
        self.env = {
            "HOME": str(self.home),
            "USER": user,
            "LOGNAME": user,
            "XDG_DATA_HOME": str(self.home / "share"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_RUNTIME_DIR": str(self.home / "runtime"),
        }

    @property
    def is_this_user(self):
        return self.uid == os.geteuid()

    def run(self, *command, cwd=None):
        """Runs a command as this user."""
        become = []
        if not self.is_this_user:
            program("setpriv")
            become = ["setpriv", "--reuid", self.uid, "--regid", self.gid, "--clear-groups", "--inh-caps=-all", "--"]
        return run(*become, *command, cwd=cwd, env=self.env)

    def own(self, path):
        if not self.is_this_user:
            run("chown", "-hR", f"{self.uid}:{self.gid}", path)

    def contest(self, title, contestants, turns, warm_ups):
        """As run.contest, in a process of this user: becoming them is no part of any start."""
        if self.is_this_user:
            return contest(title, contestants, turns, warm_ups)
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(receive)
                os.setgroups([])
                os.setresgid(self.gid, self.gid, self.gid)
                os.setresuid(self.uid, self.uid, self.uid)
                contest(title, contestants, turns, warm_ups)
                with os.fdopen(send, "w") as results:
                    json.dump([(one.seconds, one.why) for one in contestants], results)
                code = 0
            finally:
                os._exit(code)
        os.close(send)
        with os.fdopen(receive) as results:
            text = results.read()
        os.waitpid(child, 0)
        for one, (seconds, why) in zip(contestants, json.loads(text), strict=True):
            one.seconds, one.why = seconds, why


def with_subordinate_ids():
    """The first user but root that /etc/subuid and /etc/subgid name."""

    def named(path):
        try:
            return {line.split(":")[0] for line in Path(path).read_text().splitlines()}
        except OSError:
            return set()

    has_ids = named("/etc/subuid") & named("/etc/subgid")
    for user in pwd.getpwall():
        is_possible = os.geteuid() in (0, user.pw_uid)
        if user.pw_uid != 0 and is_possible and (user.pw_name in has_ids or str(user.pw_uid) in has_ids):
            return user
    raise Unavailable("no user of this machine has subordinate ids")


class Start(Bench):
    ROWS = ("root", "subids", "one_id", "exec")

    def root(self):
        if os.geteuid() != 0:
            return self.say_unavailable("root", "this is not root")
        self.level(Level("root", "`true` as root", 0, 0, "root", self.folder))

    def subids(self):
        try:
            user = with_subordinate_ids()
        except Unavailable as error:
            return self.say_unavailable("subids", error)
        title = "`true` for a user with subordinate ids"
        self.level(Level("subids", title, user.pw_uid, user.pw_gid, user.pw_name, self.folder))

    def one_id(self):
        if os.geteuid() != 0:
            return self.say_unavailable("one_id", "only root can become a user without subordinate ids")
        self.level(Level("one_id", "`true` for a user with one id", ONE_ID, ONE_ID, "nobody-knows", self.folder))

    def say_unavailable(self, row, why):
        self.report.line(row, "ibid run --pegged", f"not available: {why}", "", False)

    def place(self, level):
        """A folder of the level's user with ibid and a project in it."""
        # Everyone has to get through to what is theirs.
        self.folder.chmod(0o755)
        if not level.home.exists():
            level.home.mkdir()
            (level.home / "runtime").mkdir(mode=0o700)
            shutil.copy(self.ibid, level.home / "ibid")
            project = self.project(f"start-{level.name}", 'ENTRYPOINT ["true"]\n')
            shutil.copytree(project, level.home / "project", symlinks=True)
            level.own(level.home)
        return level.home

    def level(self, level):
        def ibid():
            home = self.place(level)
            command = [home / "ibid", "-C", home / "project"]
            level.run(*command, "build")
            return lambda number: [*command, "run", "--pegged"]

        def bwrap():
            command, rootfs = program("bwrap"), self.rootfs()
            mounts = ["--ro-bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev"]
            return lambda number: [command, *mounts, "--unshare-all", "--share-net", "true"]

        def ch_run():
            command, rootfs = program("ch-run"), self.rootfs()
            return lambda number: [command, "--no-passwd", rootfs, "--", "true"]

        def runc():
            command, home = program("runc"), self.place(level)
            bundle = home / "bundle"
            bundle.mkdir()
            level.own(bundle)
            level.run(command, "spec", *([] if level.uid == 0 else ["--rootless"]), cwd=bundle)
            config = json.loads((bundle / "config.json").read_text())
            config["process"].update(terminal=False, args=["true"])
            config["root"].update(path=str(self.rootfs()), readonly=True)
            namespaces = config["linux"]["namespaces"]
            config["linux"]["namespaces"] = [one for one in namespaces if one["type"] != "network"]
            (bundle / "config.json").write_text(json.dumps(config))
            state = home / "runc"
            return lambda number: [command, "--root", state, "run", "--bundle", bundle, f"ibid-bench-{number}"]

        def podman():
            command = self.podman(level)
            options = ["--rm", "--net=host", *PODMAN_LIMITS]
            return lambda number: [*command, "run", *options, BENCH_BASE, "true"]

        def docker():
            if level.uid != 0:
                raise Unavailable("its engine is root's")
            client = self.docker()
            return lambda number: [client, "run", "--rm", "--net=host", BENCH_BASE, "true"]

        mine = self.available("ibid run --pegged", ibid, level.env)
        peers = [
            self.available(name, make, level.env)
            for name, make in [
                ("bwrap", bwrap),
                ("ch-run", ch_run),
                ("runc run", runc),
                ("podman run --rm --net=host", podman),
                ("docker run --rm --net=host", docker),
                ("no container", lambda: lambda number: ["true"]),
            ]
        ]
        level.contest(f"start: {level.name}", [mine, *peers], self.turns(30), warm_ups=2)
        self.report.add(level.title, mine, peers, GOALS)

    def podman(self, level):
        """The command's start, with storage of the level's user that has the base."""
        home = self.place(level)
        command = [program("podman"), "--root", home / "podman", "--runroot", home / "podman-run"]
        # Without, it may copy all files for each container.
        command += ["--storage-driver", "overlay", "--cgroup-manager=cgroupfs"]
        if shutil.which("crun") is None:
            command += ["--runtime", program("runc")]
        if not (home / "podman").exists():
            level.run(*command, "import", self.rootfs_archive(), BENCH_BASE, cwd=home)
        return command

    def rootfs_archive(self):
        tar = self.folder / "rootfs.tar"
        if not tar.exists():
            run("tar", "--create", "--numeric-owner", "--file", tar, "--directory", self.rootfs(), ".")
        return tar

    def exec(self):
        """Another process in a run that goes on."""
        going = []

        def ibid():
            project = self.project("exec", 'ENTRYPOINT ["sleep", "infinity"]\n')
            command = [self.ibid, "-C", project]
            run(*command, "build", env=self.env)
            process = subprocess.Popen(
                [str(word) for word in [*command, "run", "--pegged"]],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            going.append(process.terminate)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                runs = json.loads(run(*command, "runs", "--json", env=self.env))["runs"]
                if any(one["status"] == "running" for one in runs):
                    return lambda number: [*command, "exec", runs[0]["id"], "true"]
                time.sleep(0.05)
            raise Unavailable("its run does not start")

        def docker():
            client = self.docker()
            container = run(client, "run", "--detach", "--rm", "--net=host", BENCH_BASE, "sleep", "infinity").decode().strip()
            going.append(lambda: run(client, "kill", container))
            return lambda number: [client, "exec", container, "true"]

        plain = self.available("a plain exec", lambda: lambda number: ["true"])
        mine = self.available("ibid exec", ibid, self.env)
        peers = [self.available("docker exec", docker), plain]
        try:
            contest("exec", [mine, *peers], self.turns(30), warm_ups=2)
        finally:
            for end in going:
                end()
        self.report.add("`true` in a run that goes on", mine, peers, {})
        if mine.median() is not None and plain.median() is not None:
            more = mine.median() - plain.median()
            goal = f"{EXEC_SECONDS_MAX * 1000:.0f} ms"
            self.report.line("more than a plain exec", mine.name, f"{more * 1000:.1f} ms", goal, more <= EXEC_SECONDS_MAX)


if __name__ == "__main__":
    sys.exit(main(Start, __doc__))
