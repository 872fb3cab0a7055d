#!/usr/bin/env python3
"""Times runs of an image whose user has another id than the person: 2 GB in 60,000 files, 20,000 of them that user's.

    cargo build --release && bench/identity.py [--podman]

The first run copies what the image's user owns; later ones are timed beside a small image of the person's own, in turns: the goal
is at most 10 ms more. With `--podman` the image is also run by `podman run --userns=keep-id` for the same user, once for the first
time and then in turns. Root gives all of it to an ordinary user with subordinate ids. Everything, 5 GB (8 with podman), is made
under one temporary folder and removed at the end. Needs busybox-static.
"""

import argparse
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import Contestant, Unavailable, contest, newest_build, program, run, say

FILES, OWNED_FILES, BYTES = 60_000, 20_000, 2 << 30
FILES_A_FOLDER = 100
# The image's user; nobody on the host.
USER_ID = 4242
GOAL_SECONDS = 0.010


def person():
    """Who runs all of it: an ordinary user with subordinate ids."""
    if os.getuid() != 0:
        return None
    for line in Path("/etc/subuid").read_text().splitlines():
        try:
            return pwd.getpwnam(line.split(":")[0])
        except KeyError:
            continue
    raise Unavailable("no user has subordinate ids")


def as_person(user, *command):
    if user is None:
        return [str(word) for word in command]
    ids = ["--reuid", user.pw_uid, "--regid", user.pw_gid, "--init-groups", "--inh-caps=-all"]
    return [str(word) for word in [program("setpriv"), *ids, "--", *command]]


def make_files(folder):
    content = os.urandom(BYTES // FILES)
    for number in range(FILES):
        place = folder / ("home" if number < OWNED_FILES else "opt") / f"package{number // FILES_A_FOLDER}"
        if number % FILES_A_FOLDER == 0:
            place.mkdir(parents=True)
        (place / f"module{number % FILES_A_FOLDER}.py").write_bytes(b"%d" % number + content)


def make_project(folder, name, dockerfile):
    folder.mkdir()
    shutil.copy("/bin/busybox", folder / "busybox")
    (folder / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\nworker:x:{USER_ID}:{USER_ID}::/home/worker:/bin/sh\n")
    (folder / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/true\nCOPY passwd /etc/passwd\n" + dockerfile + 'WORKDIR /code\nENTRYPOINT ["/bin/true"]\n'
    )
    (folder / "ibid.toml").write_text(f'name = "{name}"\n')


def once(command, env, cwd):
    start = time.perf_counter()
    run(*command, env=env, cwd=cwd)
    return time.perf_counter() - start


def podman(user, folder, ibid, env, turns):
    """How long podman's own handling takes: the first run, and the median of later ones."""
    archive = folder / "image.tar"
    run(*as_person(user, ibid, "save", "ibid-bench-use", "-o", archive), env=env, cwd=folder)
    podman = [program("podman"), "--storage-driver=overlay", "--root", folder / "podman", "--runroot", folder / "podman-run", "--cgroup-manager=cgroupfs"]
    run(*as_person(user, *podman, "load", "-q", "-i", archive), env=env)
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
    words = ["run", "--rm", "--network=host", f"--userns=keep-id:uid={USER_ID},gid={USER_ID}", *limits, "ibid-bench-use"]
    command = as_person(user, *podman, *words)
    return once(command, env, folder), statistics.median(once(command, env, folder) for _ in range(turns))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ibid", type=Path, help="the binary to time [default: the newest release build here]")
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--podman", action="store_true", help="run the image with podman, too")
    arguments = parser.parse_args()
    built = (arguments.ibid or newest_build(parser)).resolve()
    user = person()
    with tempfile.TemporaryDirectory(prefix="ibid-bench-", dir="/var/tmp") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        ibid = shutil.copy(built, folder / "ibid")
        env = {"HOME": str(folder / "person"), "XDG_DATA_HOME": str(folder / "person/data"), "XDG_RUNTIME_DIR": str(folder / "person")}
        try:
            say(f"making {FILES} files")
            owned = f"COPY --chown={USER_ID}:{USER_ID} home /home/worker\nUSER worker\n"
            make_project(folder / "foreign", "ibid-bench-foreign", "COPY opt /opt\n" + owned)
            make_files(folder / "foreign")
            make_project(folder / "small", "ibid-bench-small", "")
            # A project without the files of the image: what it costs to look at a context is no matter of this.
            (folder / "use").mkdir()
            (folder / "use/Dockerfile").write_text("FROM ibid-bench-foreign\nWORKDIR /code\n")
            (folder / "use/ibid.toml").write_text('name = "ibid-bench-use"\n')
            (folder / "person").mkdir()
            if user is not None:
                run("chown", "-R", f"{user.pw_uid}:{user.pw_gid}", folder)
            for name in ["foreign", "small", "use"]:
                say(f"building {name}")
                run(*as_person(user, ibid, "build"), env=env, cwd=folder / name)
            os.sync()
            command = as_person(user, ibid, "run", "--pegged")
            once(command, env, folder / "small")
            seconds = once(command, env, folder / "use")
            print(f"{'the first run, ' + str(OWNED_FILES) + ' files copied':<40} {seconds:8.2f} s", flush=True)
            foreign = Contestant("foreign", lambda _: command, env=env, cwd=folder / "use")
            small = Contestant("small", lambda _: command, env=env, cwd=folder / "small")
            contest("later runs", [foreign, small], arguments.turns, 2)
            for contestant in [foreign, small]:
                if contestant.why:
                    raise Unavailable(f"{contestant.name}: {contestant.why}")
            over = foreign.median() - small.median()
            verdict = "met" if over <= GOAL_SECONDS else "MISSED"
            print(f"{'later runs':<40} {foreign.median() * 1000:8.1f} ms", flush=True)
            print(f"{'runs of a small image':<40} {small.median() * 1000:8.1f} ms", flush=True)
            print(f"{'difference':<40} {over * 1000:8.1f} ms   at most {GOAL_SECONDS * 1000:.0f} ms: {verdict}", flush=True)
            if arguments.podman:
                first, later = podman(user, folder, ibid, env, 5)
                print(f"{'podman: the first run':<40} {first:8.2f} s   ibid : podman = {seconds / first:.3f}", flush=True)
                print(f"{'podman: later runs':<40} {later * 1000:8.1f} ms   ibid : podman = {foreign.median() / later:.3f}", flush=True)
        except (Unavailable, subprocess.SubprocessError) as error:
            sys.exit(f"cannot be timed: {error}")
        finally:
            # Files of subordinate ids are theirs who made them; only they, or root, can remove them.
            if user is None:
                subprocess.run(["unshare", "--map-auto", "--map-root-user", "rm", "-rf", folder / "person", folder / "podman"], check=False)


if __name__ == "__main__":
    main()
