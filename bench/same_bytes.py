#!/usr/bin/env python3
"""Builds each image of bench/images twice, the second time on a changed host, and prints how often the digests are equal.

    cargo build --release && bench/same_bytes.py

The second build has another folder, other times and modes of the files, another time zone and umask, and caches nothing: ibid
has a second store, in which the base is made anew from the lock of the first. The peers, `docker build` (BuildKit) and
`buildah bud --timestamp 0`, start from ibid's base. A peer that is not installed or does not work here is a line that says why.
Everything is made under one temporary folder, apart from images named ibid-bench-* in the Docker engine, and removed at the end.

Peers, both Debian packages: docker.io (with dockerd running), buildah.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from run import BASE, BENCH_BASE, BUILDAH_LIMITS, ROOT, Unavailable, newest_build, program, run, say

IMAGES = ROOT / "bench" / "images"
PROJECT = f'[base."{BASE}"]\nsuite = "bookworm"\npackages = ["ca-certificates"]\n'
# Where Debian and most others keep the host's certificates; peers need them in their base.
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def projects(name, folder, base):
    """Two copies of an image's project: as a checkout makes it, and as another person's has it."""
    copies = []
    for number, place in enumerate((folder / name, folder / "elsewhere" / "a longer name" / name)):
        shutil.copytree(IMAGES / name, place)
        dockerfile = place / "Dockerfile"
        dockerfile.write_text(dockerfile.read_text().replace(f"FROM {BASE}", f"FROM {base}"))
        if number == 1:
            for path in place.rglob("*"):
                os.chmod(path, 0o700 if path.is_dir() else 0o600)
                os.utime(path, (1_000_000_000, 1_000_000_000))
        copies.append(place)
    return copies


class Ibid:
    name = "ibid build"

    def __init__(self, ibid, folder):
        self.ibid, self.folder, self.lock = ibid, folder / "ibid", None

    def digests(self, name):
        found = []
        for number, project in enumerate(projects(name, self.folder, BASE)):
            (project / "ibid.toml").write_text(PROJECT)
            if self.lock is not None:
                (project / "ibid.lock").write_text(self.lock)
            env = {"XDG_DATA_HOME": str(self.folder / f"share-{number}"), "TZ": ("UTC", "Asia/Kathmandu")[number]}
            umask = ("022", "077")[number]
            command = ["sh", "-c", f'umask {umask}; exec "$@"', "sh", self.ibid, "-C", project, "build", "--no-cache"]
            found.append(run(*command, env=env).decode().strip())
            self.lock = (project / "ibid.lock").read_text()
        return found

    def clean_up(self):
        pass


class Docker:
    name = "docker build --no-cache"

    def __init__(self, archive, folder):
        program("dockerd")
        self.client = "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else program("docker")
        self.folder, self.images = folder / "docker", []
        run(self.client, "load", "--input", archive)
        context = base_context(self.folder)
        self.build(context, "--tag", BENCH_BASE)

    def build(self, context, *flags):
        command = [self.client, "build", "--quiet", "--no-cache", "--network", "host", *flags, context]
        image = run(*command, env={"DOCKER_BUILDKIT": "1"}).decode().strip()
        self.images.append(image)
        return image

    def digests(self, name):
        return [self.build(project) for project in projects(name, self.folder, BENCH_BASE)]

    def clean_up(self):
        for image in dict.fromkeys(reversed(self.images)):
            subprocess.run([self.client, "image", "rm", "--force", image], stdout=subprocess.DEVNULL, check=False)


class Buildah:
    name = "buildah bud --timestamp 0"

    def __init__(self, archive, folder):
        self.folder = folder / "buildah"
        self.command = [program("buildah"), "--root", self.folder / "root", "--runroot", self.folder / "run"]
        run(*self.command, "pull", f"docker-archive:{archive}")
        self.build(base_context(self.folder), "--tag", BENCH_BASE)

    def build(self, context, *flags):
        identity = self.folder / "identity"
        command = [*self.command, "bud", "--quiet", "--no-cache", "--timestamp", "0", "--isolation", "chroot"]
        command += ["--network", "host", *BUILDAH_LIMITS, "--iidfile", identity, *flags, context]
        run(*command)
        return identity.read_text().strip()

    def digests(self, name):
        return [self.build(project) for project in projects(name, self.folder, BENCH_BASE)]

    def clean_up(self):
        subprocess.run([*map(str, self.command), "rmi", "--all", "--force"], stdout=subprocess.DEVNULL, check=False)


def base_context(folder):
    """A base for peers, which do not lend the host's certificates to a build."""
    bundle = next((path for path in BUNDLES if os.path.exists(path)), None)
    context = folder / "base"
    context.mkdir(parents=True)
    lines = [f"FROM {BASE}"]
    if bundle is not None:
        shutil.copy(bundle, context / "ca.crt")
        lines += ["COPY ca.crt /opt/ca.crt", "ENV SSL_CERT_FILE=/opt/ca.crt PIP_CERT=/opt/ca.crt"]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    return context


def main():
    known = sorted(path.name for path in IMAGES.iterdir())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"only these: {', '.join(known)}")
    parser.add_argument("--ibid", type=Path, help="binary to use [default: the release build of this checkout]")
    parser.add_argument("--no-peers", action="store_true", help="only ibid")
    parser.add_argument("--folder", type=Path, help="where to work [default: /var/tmp]", default=Path("/var/tmp"))
    arguments = parser.parse_args()
    for name in arguments.images:
        if name not in known:
            parser.error(f"no image {name!r}; there are {', '.join(known)}")
    names = arguments.images or known
    ibid = arguments.ibid or newest_build(parser)

    folder = Path(tempfile.mkdtemp(prefix="ibid-same-bytes-", dir=arguments.folder))
    tools, missing = [Ibid(ibid.resolve(), folder)], []
    equal = {}
    try:
        if not arguments.no_peers:
            project = folder / "base"
            project.mkdir()
            (project / "Dockerfile").write_text(f"FROM {BASE}\n")
            (project / "ibid.toml").write_text(PROJECT)
            archive = folder / "base.tar"
            env = {"XDG_DATA_HOME": str(folder / "base-share")}
            run(ibid.resolve(), "-C", project, "build", env=env)
            run(ibid.resolve(), "-C", project, "save", BASE, "-o", archive, env=env)
            for tool in (Docker, Buildah):
                try:
                    tools.append(tool(archive, folder))
                except (Unavailable, OSError) as error:
                    missing.append(f"{tool.name}: not available: {error}")
        for name in names:
            for tool in tools:
                say(f"{name}: {tool.name}")
                try:
                    first, second = tool.digests(name)
                    equal[name, tool.name] = "same" if first == second else "DIFFERENT"
                except Unavailable as error:
                    equal[name, tool.name] = f"failed: {error}"
    finally:
        for tool in tools:
            tool.clean_up()
        # Folders of a container's other users can only be removed from within ibid's user namespace, or by root.
        shutil.rmtree(folder, ignore_errors=True)
    print("| image | " + " | ".join(tool.name for tool in tools) + " |")
    print("|---" * (len(tools) + 1) + "|")
    for name in names:
        print(f"| {name} | " + " | ".join(equal[name, tool.name] for tool in tools) + " |")
    shares = [sum(equal[name, tool.name] == "same" for name in names) for tool in tools]
    print("| same of all | " + " | ".join(f"{share} of {len(names)}" for share in shares) + " |")
    for line in missing:
        print(line)
    return 0 if shares[0] == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
