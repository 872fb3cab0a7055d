#!/usr/bin/env bash
# Opens a shell in the image `mnist` on the image's own code: nothing of this folder is mounted, and what is written in
# the container goes with it. Arguments go to bash: ./docker_run_bash.sh -c 'python3 mnist.py --n-epochs 1'
#
# The process has the ids of the person who asks, also through sudo (root's, for root).
set -euo pipefail

uid=$(id -u) gid=$(id -g)
[ "$uid" != 0 ] || uid=${SUDO_UID:-0} gid=${SUDO_GID:-0}
terminal=()
if [ -t 0 ] && [ -t 1 ]; then terminal=(--tty); fi

# --pull never: an image `mnist` on some registry is not this one.
exec docker run --rm --pull never --interactive "${terminal[@]}" --user "$uid:$gid" --entrypoint bash mnist "$@"
