#!/usr/bin/env bash
# Fetches the four MNIST files into data/ beside this script, where mnist.py looks for them.
#
# Each file must have the SHA-256 below; anything else is refused and leaves nothing behind. A file that is already
# there and right is not fetched again. MNIST_URL names another folder to fetch from: since the digests are fixed,
# any mirror is as good as the next.
#
# Needs curl or wget, and sha256sum.
set -euo pipefail

url=${MNIST_URL:-https://storage.googleapis.com/cvdf-datasets/mnist}
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/data

files=(
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609 train-images-idx3-ubyte.gz"
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c train-labels-idx1-ubyte.gz"
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6 t10k-images-idx3-ubyte.gz"
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6 t10k-labels-idx1-ubyte.gz"
)

fail() {
    echo "download_mnist.sh: $*" >&2
    exit 1
}

fetch() { # URL FILE
    if command -v curl > /dev/null; then
        curl --fail --silent --show-error --location --retry 2 --max-time 600 --output "$2" -- "$1"
    elif command -v wget > /dev/null; then
        wget --quiet --tries 3 --timeout 60 --output-document "$2" -- "$1"
    else
        fail "needs curl or wget: install one of them"
    fi
}

mkdir -p "$folder"
partial=$(mktemp -d "$folder/.download.XXXXXX")
trap 'rm -rf "$partial"' EXIT

for line in "${files[@]}"; do
    digest=${line%% *} name=${line##* }
    if [ -e "$folder/$name" ] && echo "$digest  $folder/$name" | sha256sum --status --check; then
        echo "$name: already there"
        continue
    fi
    fetch "$url/$name" "$partial/$name" || fail "$url/$name cannot be fetched; set MNIST_URL to another mirror"
    found=$(sha256sum < "$partial/$name")
    found=${found%% *}
    [ "$found" = "$digest" ] || fail "$url/$name has SHA-256 $found instead of $digest; set MNIST_URL to another mirror"
    # A rename within one file system: the file appears whole or not at all.
    mv "$partial/$name" "$folder/$name"
    echo "$name: fetched and checked"
done
