#!/usr/bin/env bash
# Opens a shell in the image `lab/my-project` on the image's own code, as `ibid dev --pegged` does. Arguments go to the shell:
# ./podman_run_bash.sh -c 'ls'
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
[ "$(id -u)" = 0 ] || identity+=(--userns keep-id)
# As much shared memory as a program has outside a container.
shm=$(awk '/^MemTotal:/ { print int($2 / 2) "k" }' /proc/meminfo)

mounts=()
add() { # SOURCE TARGET [OPTION]
    mounts+=(--volume "$1:$2${3:+:$3}")
}
case $PWD in *:*) echo "podman takes the ':' in $PWD for the end of a path" >&2; exit 125 ;; esac
code='/the code'
[ -e './out put' ] || install --directory --owner "$uid" --group "$gid" './out put'
add "$PWD/out put" "$code/out put"
[ -e ./plots ] || install --directory --owner "$uid" --group "$gid" ./plots
add "$PWD/plots" "$code/plots"
[ ! -e "./da\$ta" ] || add "$PWD/da\$ta" "$code/da\$ta" ro

# --pull never: an image `lab/my-project` on some registry is not this one.
exec podman run --rm --pull never --network host --interactive "${terminal[@]}" \
    --security-opt label=disable \
    "${identity[@]}" \
    --shm-size "$shm" \
    "${mounts[@]}" \
    --env "WORDS=a, 'b' \$c" \
    --device nvidia.com/gpu=all \
    --entrypoint /bin/sh lab/my-project -c 'exec "$(command -v "${SHELL:-}" || command -v bash || echo sh)" "$@"' sh "$@"
