#!/bin/sh
# Checks that browsers accept every kernel: compiles what `attn shaders --web` writes with Dawn, Chromium's WebGPU, in node.
#
#     tools/dawn-check.sh            all kernels, in every combination of three hooks, tiles and sizes
#     tools/dawn-check.sh FILE...    these WGSL files
#
# npm fetches Dawn once (package `webgpu`, 130 MB) into a cache folder: nothing is installed, no driver is used. Where node
# or npm is missing or the package cannot be had, says "skipped" and succeeds; with REQUIRE=1 it fails instead.
# DAWN_BACKEND=vulkan compiles on through the driver that VK_ICD_FILENAMES names.
set -eu

version=0.6.2
root=$(dirname "$0")/..
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/wgpu-attention/webgpu-$version

skip() {
    echo "dawn-check: skipped, since $1"
    exit "${REQUIRE:-0}"
}

# The package with a stamp beside it, so that a fetch cut short is begun anew.
fetch() {
    rm -rf "$cache"
    mkdir -p "$cache"
    npm install --prefix "$cache" --no-save --ignore-scripts --no-audit --no-fund --loglevel=error \
        --fetch-retries=1 --fetch-timeout=60000 "webgpu@$version" && : >"$cache/complete"
}

for tool in node npm; do
    command -v $tool >/dev/null || skip "there is no $tool on the PATH"
done
[ -e "$cache/complete" ] || fetch || skip "npm could not fetch webgpu@$version (its message is above)"

if [ $# = 0 ]; then
    folder=${CARGO_TARGET_DIR:-$root/target}/shaders-web
    rm -rf "$folder"
    "${CARGO:-cargo}" run --quiet --manifest-path "$root/Cargo.toml" -- shaders --dump "$folder" --web --combinations 3
    set -- "$folder"/*.wgsl
fi
node "$root/tools/dawn-check.mjs" "$cache" "$@"
