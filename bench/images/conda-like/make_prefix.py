"""Makes what a conda installation looks like: hard-linked packages, metadata, a history with times, compiled files."""

import compileall
import json
import os
import sys
import time
from pathlib import Path

prefix = Path(sys.argv[1])
for folder in ("bin", "conda-meta", "pkgs", "lib/python3.11/site-packages"):
    (prefix / folder).mkdir(parents=True)
(prefix / "conda-meta/history").write_text(f"==> {time.strftime('%Y-%m-%d %H:%M:%S')} <==\n# cmd: conda create\n")
for number in range(40):
    name = f"package{number}"
    source = prefix / "pkgs" / f"{name}-1.0" / name
    source.mkdir(parents=True)
    (source / "__init__.py").write_text(f"def value():\n    return {{{number}, {number + 1}, 'x'}}\n")
    target = prefix / "lib/python3.11/site-packages" / name
    target.mkdir()
    os.link(source / "__init__.py", target / "__init__.py")
    (prefix / "conda-meta" / f"{name}-1.0-0.json").write_text(json.dumps({"name": name, "files": [f"{name}/__init__.py"]}))
compileall.compile_dir(prefix / "lib", quiet=1)
program = prefix / "bin/tool"
program.write_text(f"#!{prefix}/bin/python\nprint('tool')\n")
program.chmod(0o755)
