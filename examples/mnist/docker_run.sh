#!/usr/bin/env bash
# Runs mnist.py in the image `mnist` on the code of this folder, mounted over the image's own, so that an edit needs
# no new build. Arguments go to mnist.py: ./docker_run.sh --n-epochs 5 --learning-rate 0.14
#
# The process has the ids of the person who asks, also through sudo, so that output/ is theirs (root's, for root).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

uid=$(id -u) gid=$(id -g)
[ "$uid" != 0 ] || uid=${SUDO_UID:-0} gid=${SUDO_GID:-0}
terminal=()
if [ -t 0 ] && [ -t 1 ]; then terminal=(--interactive --tty); fi

# --pull never: an image `mnist` on some registry is not this one.
exec docker run --rm --pull never "${terminal[@]}" --user "$uid:$gid" \
    --mount "type=bind,source=$PWD,target=/code" mnist "$@"
