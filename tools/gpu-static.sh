#!/bin/sh
# Static figures of kernels from RADV's offline compiler, without a GPU: registers, spills, workgroup memory, waves, multiply-adds,
# size of the code.
#
#     tools/gpu-static.sh              refreshes the tables of benches/static, unless a kernel got worse: then says how, and fails
#     tools/gpu-static.sh --accept     refreshes them all the same
#     tools/gpu-static.sh --check      writes nothing; fails where a tuned kernel is worse than its row
#     tools/gpu-static.sh [--listings DIR] FILE.spv...  prints the figures of these, which `attn shaders --dump` wrote with their
#                                      WGSL beside them; and writes their machine code to DIR/GPU/KERNEL.txt
#
# tools/second-drivers.sh fetches the driver, once; --check fetches nothing. RADV_ICD names the ICD file of another RADV, with
# LD_LIBRARY_PATH where it needs that. Where there is no RADV, says "skipped" and succeeds; with REQUIRE=1 it fails.
# GPUS=navi31,... are other GPUs, by Mesa's names.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cargo=${CARGO:-cargo}
folder=${CARGO_TARGET_DIR:-$root/target}/gpu-static
export OFFLINE="${OFFLINE:-0}" XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"

in_root() { (cd "$root" && "$@"); }

# The program, with RADV chosen by its environment.
figures() {
    set -- "$cargo" run --quiet --example gpu-static -- --gpus "${GPUS:-navi31,navi21,vega10}" "$@"
    if [ -n "${RADV_ICD:-}" ]; then
        VK_ICD_FILENAMES=$RADV_ICD VK_DRIVER_FILES=$RADV_ICD in_root "$@"
    else
        sh "$root/tools/second-drivers.sh" radv -- "$@"
    fi
}

option=
listings=
case ${1:-} in
    --check) option=--check OFFLINE=1 ;;
    --accept) option=--accept ;;
    --listings) listings=$2 && shift ;;
    -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
[ -z "$option$listings" ] || shift
in_root "$cargo" build --quiet --bin attn --example gpu-static

if [ $# = 0 ]; then
    rm -rf "$folder"
    in_root "$cargo" run --quiet -- shaders --tuned --dump "$folder" --format wgsl --format spirv >/dev/null
    worse=0
    figures --tables "$root/benches/static" --date "$(date +%F)" $option "$folder"/*.spv || worse=1
    # Of the GPUs that there are tables for, one has units for matrices.
    in_root "$cargo" run --quiet -- shaders --tuned-matrices --dump "$folder/matrix" --format wgsl --format spirv >/dev/null
    GPUS=navi31
    figures --tables "$root/benches/static/matrix" --date "$(date +%F)" $option "$folder"/matrix/*.spv || worse=1
    exit $worse
else
    for file; do
        shift
        case $file in /*) ;; *) file=$PWD/$file ;; esac
        set -- "$@" "$file"
    done
    if [ -n "$listings" ]; then
        case $listings in /*) ;; *) listings=$PWD/$listings ;; esac
        set -- --listings "$listings" "$@"
    fi
    figures "$@"
fi
