#!/bin/sh
# Runs the tests on software Vulkan drivers that are not this machine's own.
#
#     tools/second-drivers.sh [--quick] [DRIVER...]     the oracle cases and every test; --quick is the cases alone
#     tools/second-drivers.sh [DRIVER...] -- COMMAND    any command, with the driver chosen by its environment
#
# DRIVER (the first two, if none is named; with --quick the first):
#     swiftshader   Chromium's: subgroups of 4 lanes, no f16, 256 invocations, 10 storage buffers
#     mesa          llvmpipe of Mesa 25 (Debian 12 has 22.3): compiles slowly, so its first run takes long
#     mesa26        llvmpipe of Mesa 26, which has cooperative matrices: checked with the family that uses them. It comes with its own
#                   C library, so what runs there is what cargo runs
#     radv          AMD's driver of Mesa 25, which compiles without a GPU: only with a COMMAND (see tools/gpu-static.sh)
#
# They are taken out of Debian's packages, which apt checks, into a cache folder, once; nothing on this machine is installed or
# changed. That needs Debian or Ubuntu. Where a driver cannot be had, says "skipped" and succeeds; with REQUIRE=1 it fails.
# OFFLINE=1 fetches none, DEBIAN_MIRROR names another mirror, ATTN_ORACLES another folder of cases.
set -eu

cd "$(dirname "$0")/.."
script=tools/${0##*/}
cargo=${CARGO:-cargo}
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/wgpu-attention/drivers
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"

say() { printf 'second-drivers: %s\n' "$@"; }
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$script" >&2; exit 2; }

# --- fetching (functions whose bodies stand in parentheses are subshells) --------------------------------------------

# apt-get with sources, lists and a record of installed packages of its own, below $apt. Only the way to the network is the
# machine's; its hooks are not.
own_apt() { APT_CONFIG=$apt/apt.conf apt-get -qq "$@"; }

mirror() {
    [ -z "${DEBIAN_MIRROR:-}" ] || { echo "${DEBIAN_MIRROR%/}"; return; }
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed -n 's|^\(https\{0,1\}://.*/debian\)/*$|\1|p' | head -n 1 | grep . || echo http://deb.debian.org/debian
}

prepare_apt() ( # prepare_apt SUITE...
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e $keys ] || { say "no $keys: install the package debian-archive-keyring"; exit 1; }
    rm -rf "$apt"
    mkdir -p "$apt/etc/apt/apt.conf.d" "$apt/etc/apt/preferences.d" "$apt/var/lib/apt/lists/partial" \
        "$apt/var/cache/apt/archives/partial"
    : >"$apt/status"
    from=$(mirror)
    for suite; do
        case $suite in *-security) uri=$from-security ;; *) uri=$from ;; esac
        echo "deb [signed-by=$keys] $uri $suite main"
    done >"$apt/etc/apt/sources.list"
    {
        apt-config dump | grep '^Acquire::.*Proxy' || true
        echo "Dir \"$apt\";"
        echo "Dir::State::status \"$apt/status\";"
        echo 'APT::Install-Recommends "false";'
        echo 'APT::Sandbox::User "root";'
    } >"$apt/apt.conf"
    own_apt update
)

# All fill $folder, and print the name of the package that the driver is from. The suite is old, so that its libraries run on
# any later system.
fetch_swiftshader() (
    prepare_apt bookworm bookworm-security
    cd "$apt"
    own_apt download chromium-common
    echo chromium-common_*.deb
    dpkg-deb --fsys-tarfile chromium-common_*.deb | tar -x -O ./usr/lib/chromium/libvk_swiftshader.so >"$folder/driver.so"
)

fetch_mesa() { mesa_driver lvp bookworm; }
fetch_radv() { mesa_driver radeon bookworm; }

# The C library and the compiler's are the machine's own: two of them in one process do not work.
own() {
    case $1 in
        libc6_* | libgcc-s1_* | libstdc++6_* | gcc-*) ;;
        *) return 1 ;;
    esac
}

# Newer than the C library of the systems that this runs on: with its own, and a program that starts others with that.
fetch_mesa26() (
    own() { false; }
    mesa_driver lvp trixie
    lib=$cache/mesa26/lib
    loader=$(basename "$folder"/lib/ld-linux*.so*)
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "$@"\n' "$lib/$loader" "$lib" >"$folder/start"
    chmod +x "$folder/start"
)

# The driver and all its libraries, but for packages that the function `own` names.
mesa_driver() ( # mesa_driver NAME SUITE
    prepare_apt "$2" "$2-backports"
    own_apt -y --download-only -t "$2-backports" install mesa-vulkan-drivers libvulkan1 >&2
    (cd "$apt/var/cache/apt/archives" && echo mesa-vulkan-drivers_*.deb)
    for package in "$apt"/var/cache/apt/archives/*.deb; do
        own "${package##*/}" || dpkg-deb -x "$package" "$folder/root"
    done
    mkdir "$folder/lib"
    mv "$folder"/root/usr/lib/*-linux-*/*.so* "$folder/lib"
    mv "$folder/lib/libvulkan_$1.so" "$folder/driver.so"
    rm -rf "$folder/root" "$folder"/lib/libvulkan_*
)

# Makes $cache/DRIVER, whole or not at all.
fetch() ( # fetch DRIVER
    for tool in apt-get apt-config dpkg-deb tar; do
        command -v $tool >/dev/null || { say "no $tool: this is for Debian and Ubuntu"; exit 1; }
    done
    folder=$cache/$1.part
    apt=$cache/$1.apt
    trap 'rm -rf "$folder" "$apt"' EXIT
    rm -rf "$folder"
    mkdir -p "$folder"
    say "fetching $1 into $cache"
    "fetch_$1" >"$folder/version"
    [ -s "$folder/driver.so" ]
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}\n' \
        "$cache/$1/driver.so" >"$folder/icd.json"
    mv "$folder" "$cache/$1"
)

# --- running ---------------------------------------------------------------------------------------------------------

on() ( # on DRIVER COMMAND...
    folder=$cache/$1
    shift
    export VK_ICD_FILENAMES="$folder/icd.json" VK_DRIVER_FILES="$folder/icd.json"
    if [ -x "$folder/start" ]; then
        host=$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
        export "CARGO_TARGET_${host}_RUNNER=$folder/start"
        set -- env -u LD_LIBRARY_PATH "$@"
    elif [ -d "$folder/lib" ]; then
        export LD_LIBRARY_PATH="$folder/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
    "$@"
)

# Everything is built before: what runs with a driver's libraries is cargo and the tests, and no linker.
check() { # check DRIVER
    only=
    tests=--tests
    [ "$1" != mesa26 ] || { only='--family matrix' && tests='--test matrix'; }
    # shellcheck disable=SC2086 # words
    on "$1" "$cargo" run --quiet -- verify $only --cases "${ATTN_ORACLES:-tests/oracles}"
    # shellcheck disable=SC2086 # words
    [ -n "$quick" ] || on "$1" "$cargo" test $tests
}

if [ "${1:-}" = --fetch ]; then
    fetch "$2"
    exit
fi
quick=
drivers=
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=yes ;;
        swiftshader | mesa | mesa26 | radv) drivers="$drivers $1" ;;
        --) break ;;
        *) usage ;;
    esac
    shift
done
if [ $# -gt 1 ]; then
    shift
elif [ $# = 1 ]; then
    usage
else
    set -- check
fi
case "$1 $drivers" in check*radv*) usage ;; esac
if [ -z "$drivers" ]; then
    drivers=swiftshader
    [ -n "$quick" ] || drivers="$drivers mesa"
fi

[ "$1" != check ] || [ -n "$quick" ] || "$cargo" test --tests --no-run
for driver in $drivers; do
    if [ ! -d "$cache/$driver" ] && [ "${OFFLINE:-0}" != 0 ]; then
        say "$driver: skipped, since it is not in $cache"
        [ "${REQUIRE:-0}" = 0 ] || exit 1
    # A process of its own: in a condition, `set -e` would not hold within a function.
    elif [ ! -d "$cache/$driver" ] && ! sh "$script" --fetch "$driver"; then
        say "$driver: skipped, since it could not be fetched (see above)"
        [ "${REQUIRE:-0}" = 0 ] || exit 1
    elif [ "$1" = check ]; then
        say "$driver: $(cat "$cache/$driver/version")"
        check "$driver"
    else
        on "$driver" "$@"
    fi
done
