#!/usr/bin/env bash
# Opens a shell in the image `lab/my-project` with the code of this project mounted over the image's own, as `ibid dev` does.
# Arguments go to the shell.
#
# The process is the person who asks, so that files it makes are theirs.
#
# Written by `ibid eject`; it does not need ibid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"/..

mounts=()
case $PWD in *[:,]*) echo "apptainer takes the ':' or ',' in $PWD for the end of a path" >&2; exit 125 ;; esac
mounts+=(--bind "$PWD:/the code")
[ ! -e "./da\$ta" ] || mounts+=(--bind "$PWD/da\$ta:/the code/da\$ta:ro")
export "APPTAINERENV_WORDS=a, 'b' \$c"
gpus=(--nv)
# AMD's driver has this device.
[ ! -e /dev/kfd ] || gpus=(--rocm)

# shellcheck disable=SC2016 # the shell in the image expands it
exec apptainer exec --containall --writable-tmpfs \
    --pwd '/the code' \
    "${mounts[@]}" \
    "${gpus[@]}" \
    ./lab-my-project.sif /bin/sh -c 'exec "$(command -v "${SHELL:-}" || command -v bash || echo sh)" "$@"' sh "$@"
