#!/usr/bin/env bash
# Opens a shell in the image `mnist` with the code of this folder mounted over the image's own.
# Arguments go to bash: ./docker_dev.sh -c 'python3 -m unittest'
#
# The process has the ids of the person who asks, also through sudo, so that files it makes are theirs (root's, for
# root).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

uid=$(id -u) gid=$(id -g)
[ "$uid" != 0 ] || uid=${SUDO_UID:-0} gid=${SUDO_GID:-0}
terminal=()
if [ -t 0 ] && [ -t 1 ]; then terminal=(--tty); fi

# --pull never: an image `mnist` on some registry is not this one.
exec docker run --rm --pull never --interactive "${terminal[@]}" --user "$uid:$gid" \
    --mount "type=bind,source=$PWD,target=/code" --entrypoint bash mnist "$@"
