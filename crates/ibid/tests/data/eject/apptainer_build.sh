#!/usr/bin/env bash
# Turns an archive of the image `lab/my-project` into the file that the other scripts run: ./apptainer_build.sh ARCHIVE
#
# Apptainer reads no Dockerfile. The archive is what `docker save lab/my-project -o ARCHIVE` or `ibid save lab/my-project -o ARCHIVE` writes,
# on any computer.
#
# Written by `ibid eject`; it does not need ibid.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 ARCHIVE, as \`docker save lab/my-project -o ARCHIVE\` writes it" >&2; exit 125; }
archive=$(realpath -- "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"/..

exec apptainer build --force ./lab-my-project.sif "docker-archive:$archive"
