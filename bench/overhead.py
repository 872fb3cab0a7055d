#!/usr/bin/env python3
"""Times what recording a run costs: ibid over its own engine, and Guild AI, MLflow and DVC over the bare interpreter.

    cargo build --release && bench/overhead.py

The program is a Python script that uses the standard library only, takes two parameters, tells a metric and writes a file, in a small
project under version control. With ibid, `ibid dev --entrypoint` executes it in the same image, with the same code mounted, and
leaves no record; the difference to `ibid run` is what the record costs. The others run it, or with MLflow a copy of it that logs the
same, beside `python3 train.py`; each is installed from PyPI into a virtual environment of its own under the temporary folder, and one
that cannot be is a line that says why. Contestants take turns as in run.py, whose options these are.
"""

import os
import shutil
import sys

from run import Bench, Unavailable, contest, main, run, say

FILES = 20
OVERHEAD_SECONDS_MAX = 0.010
SCRIPT = """#!/usr/bin/env python3
import argparse
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", type=float, default=0.1)
parser.add_argument("--n-epochs", type=int, default=5)
arguments = parser.parse_args()
loss = 1.0
for epoch in range(arguments.n_epochs):
    loss *= 1 - arguments.learning_rate
    print(f"epoch {epoch} loss: {loss}")
folder = pathlib.Path("output")
folder.mkdir(exist_ok=True)
(folder / "loss.txt").write_text(f"{loss}\\n")
"""
MLFLOW = """
import mlflow

mlflow.set_tracking_uri("file:mlruns")
with mlflow.start_run():
    mlflow.log_params(vars(arguments))
    mlflow.log_metric("loss", loss)
    mlflow.log_artifact("output/loss.txt")
"""
DVC = """stages:
  train:
    cmd: python3 train.py
    deps: [train.py]
    outs: [output/loss.txt]
"""


class Overhead(Bench):
    ROWS = ("own", "guild", "mlflow", "dvc")

    def own(self):
        """`ibid run` over `ibid dev`, which leaves no record."""
        project = self.script_project("overhead", packages=("python3-minimal",))

        def command(*words):
            run(self.ibid, "-C", project, "build", env=self.env)
            return lambda number: [self.ibid, "-C", project, *words]

        recorded = self.available("ibid run", lambda: command("run"), self.env)
        bare = self.available("ibid dev --entrypoint", lambda: command("dev", "--entrypoint", "/code/train.py"), self.env)
        self.compare("a record of ibid", recorded, bare, OVERHEAD_SECONDS_MAX)

    def guild(self):
        def make(project, bin_folder):
            (self.folder / "guild").mkdir()
            return ["guild", "run", "--yes", "train.py"]

        self.tool("Guild AI", "guildai", make, env={"GUILD_HOME": str(self.folder / "guild")})

    def mlflow(self):
        def make(project, bin_folder):
            (project / "train_mlflow.py").write_text(SCRIPT + MLFLOW)
            return ["python3", "train_mlflow.py"]

        self.tool("MLflow", "mlflow-skinny", make, env={"MLFLOW_ALLOW_FILE_STORE": "true"})

    def dvc(self):
        def make(project, bin_folder):
            (project / "dvc.yaml").write_text(DVC)
            (project / ".gitignore").unlink()
            run(bin_folder / "dvc", "init", "--quiet", cwd=project)
            (project / "output").mkdir(exist_ok=True)
            git = ["git", "-C", project, "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
            run(*git, "add", "--all")
            run(*git, "commit", "--quiet", "--message", "dvc")
            return ["dvc", "exp", "run", "--force", "--quiet"]

        self.tool("DVC", "dvc", make, env={"DVC_NO_ANALYTICS": "1"})

    def tool(self, name, package, make, env):
        """A tool over the interpreter that it runs the script with."""
        environment = self.folder / f"venv-{package}"
        bin_folder = environment / "bin"
        project = self.script_project(package)
        env = {
            **env,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench@localhost",
            "GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@localhost",
        }

        def installed():
            say(f"installing {package}")
            run(shutil.which("python3", path="/usr/bin") or "python3", "-m", "venv", environment)
            run(bin_folder / "pip", "install", "--quiet", "--disable-pip-version-check", package)
            words = make(project, bin_folder)
            command = [bin_folder / words[0], *words[1:]]
            # The first time, they set up what they need.
            run(*command, cwd=project, env=env)
            return lambda number: command

        recorded = self.available(name, installed, env, project)
        plain = self.available("python3", lambda: lambda number: ["/usr/bin/python3", "train.py"], env, project)
        self.compare(f"a record of {name}", recorded, plain, None)

    def compare(self, title, recorded, bare, goal_seconds):
        contest(title, [recorded, bare], self.turns(15), warm_ups=2)
        self.report.add(title, recorded, [bare], {})
        if recorded.median() is None or bare.median() is None:
            self.report.missed += goal_seconds is not None
            return
        more = recorded.median() - bare.median()
        goal = "" if goal_seconds is None else f"{goal_seconds * 1000:.0f} ms"
        value = f"{more * 1000:.1f} ms"
        if goal_seconds is None:
            self.report.print("", "its overhead", value, "", "", "")
        else:
            self.report.line("", "its overhead", value, goal, more <= goal_seconds)

    def script_project(self, name, packages=("ca-certificates",)):
        """A small project with the script."""
        project = self.project(name, 'WORKDIR /code\nENTRYPOINT ["/code/train.py"]\n', FILES, packages)
        script = project / "train.py"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        with (project / "ibid.toml").open("a") as settings:
            settings.write('[run]\noutputs = ["output"]\n')
        (project / ".gitignore").write_text("output\n")
        git = ["git", "-C", project, "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        run(*git, "add", "--all")
        run(*git, "commit", "--quiet", "--message", "script")
        return project


if __name__ == "__main__":
    sys.exit(main(Overhead, __doc__))
