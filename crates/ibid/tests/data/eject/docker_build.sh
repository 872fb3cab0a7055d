#!/usr/bin/env bash
# Builds the image `lab/my-project`, as `ibid build` does. Arguments go to `docker build`: ./docker_build.sh --no-cache
#
# The user in the image gets the ids of the person who asks, also through sudo. For root itself the Dockerfile's
# defaults stand, since useradd refuses id 0; the other scripts then run the container as root.
#
# Written by `ibid eject`; it does not need ibid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"/..

uid=$(id -u) gid=$(id -g)
[ "$uid" != 0 ] || uid=${SUDO_UID:-0} gid=${SUDO_GID:-0}
ids=()
[ "$uid" = 0 ] || ids=(--build-arg "USER_ID=$uid" --build-arg "GROUP_ID=$gid")

exec docker build --tag lab/my-project \
    --file 'docker files/Dockerfile' \
    "${ids[@]}" \
    --build-arg "GREETING=it's \$HOME \"x\"" \
    "$@" src
