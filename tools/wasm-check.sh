#!/bin/sh
# Checks that the library compiles for browsers: cargo check for wasm32-unknown-unknown, without the `cli` feature.
# Adds the target by rustup where it is missing; where that cannot be done, says "skipped" and succeeds.
set -eu

cd "$(dirname "$0")/.."
target=wasm32-unknown-unknown

# The flags may name another sysroot, so they count here as they do for cargo.
has_target() {
    flags=${CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS:-}
    # shellcheck disable=SC2086 # several flags
    folder=$("${RUSTC:-rustc}" $flags --print target-libdir --target $target)
    ls "$folder"/libcore-*.rlib >/dev/null 2>&1
}

if ! has_target; then
    if command -v rustup >/dev/null; then rustup target add $target || true; fi
    if ! has_target; then
        echo "wasm-check: skipped, since the Rust target $target is not installed and could not be added"
        exit 0
    fi
fi
"${CARGO:-cargo}" check --lib --no-default-features --target $target
