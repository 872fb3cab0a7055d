#!/usr/bin/env bash
# Runs the image `lab/my-project` on the code of this project, mounted over the image's own, as `ibid run` does. Arguments go
# to its program: ./docker_run.sh --n-epochs 5
#
# The process has the ids of the person who asks, also through sudo, so that files it makes are theirs (root's, for
# root).
#
# Written by `ibid eject`; it does not need ibid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"/..

uid=$(id -u) gid=$(id -g)
[ "$uid" != 0 ] || uid=${SUDO_UID:-0} gid=${SUDO_GID:-0}
terminal=()
if [ -t 0 ] && [ -t 1 ]; then terminal=(--tty); fi
identity=(--user "$uid:$gid")
# As much shared memory as a program has outside a container.
shm=$(awk '/^MemTotal:/ { print int($2 / 2) "k" }' /proc/meminfo)

mounts=()
add() { # SOURCE TARGET [OPTION]
    mounts+=(--mount "type=bind,\"source=${1//\"/\"\"}\",\"target=${2//\"/\"\"}\"${3:+,$3}")
}
code='/the code'
add "$PWD" "$code"
[ ! -e "./da\$ta" ] || add "$PWD/da\$ta" "$code/da\$ta" readonly

# --pull never: an image `lab/my-project` on some registry is not this one.
exec docker run --rm --pull never --network host --interactive "${terminal[@]}" \
    "${identity[@]}" \
    --shm-size "$shm" \
    "${mounts[@]}" \
    --env "WORDS=a, 'b' \$c" \
    --gpus all \
    lab/my-project "$@"
