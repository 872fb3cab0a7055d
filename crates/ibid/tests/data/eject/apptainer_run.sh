#!/usr/bin/env bash
# Runs the image `lab/my-project` on the code of this project, as `ibid run` does. Arguments go to its program.
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

exec apptainer run --containall --writable-tmpfs \
    --pwd '/the code' \
    "${mounts[@]}" \
    "${gpus[@]}" \
    ./lab-my-project.sif "$@"
