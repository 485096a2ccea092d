#!/bin/sh
# Makes sure that cargo, a C linker, the Vulkan loader and a driver for this machine are there, on Linux.
# Installs what is missing with the system's package manager; silent when nothing is; does nothing on other systems.
set -eu

[ "$(uname -s)" = Linux ] || exit 0

package=$(dirname "$0")/../Cargo.toml
cargo=${CARGO:-cargo}
say() { printf 'ensure-vulkan: %s\n' "$@" >&2; }
fail() { say "$@"; exit 1; }

# --- what is there (a function whose body stands in parentheses is a subshell) ---------------------------------------

check_cargo() {
    if ! command -v "$cargo" >/dev/null; then
        [ -z "${CARGO:-}" ] || fail "CARGO is set to '$CARGO', which was not found."
        home=${CARGO_HOME:-${HOME:-}/.cargo}
        [ ! -x "$home/bin/cargo" ] || fail "cargo is installed but not on the PATH. Run:  . \"$home/env\""
        fail "cargo was not found. Install Rust (https://rustup.rs), then open a new terminal and try again:" \
            "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    fi
    wanted=$(sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' "$package")
    found=$("$cargo" --version) || fail "'$cargo --version' failed: see its message above."
    case $found in
        "cargo 1."*)
            minor=${found#cargo 1.}
            [ "${minor%%.*}" -ge "$wanted" ] ||
                fail "$found is too old, Rust 1.$wanted or newer is needed: run 'rustup update'," \
                    "or, where Rust came as a package of the system, install it from https://rustup.rs"
            ;;
    esac
}

# Whether this library is there: a path, or a bare name that the dynamic linker would find.
has_library() (
    case $1 in */*) [ -e "$1" ]; exit ;; esac
    PATH=$PATH:/usr/sbin:/sbin
    cached=$(ldconfig -p 2>/dev/null | sed -n "s/^[[:space:]]*$1 (.*) => //p")
    IFS='
'
    for path in $cached; do
        [ ! -e "$path" ] || exit 0
    done
    IFS=:
    for folder in ${LD_LIBRARY_PATH:-} /lib /lib64 /usr/lib /usr/lib64 /usr/local/lib /usr/local/lib64 \
        /lib/*-linux-* /usr/lib/*-linux-* /run/opengl-driver/lib; do
        [ ! -e "$folder/$1" ] || exit 0
    done
    exit 1
)

# Whether the device files that a driver of this name opens are there and ours to use. Systems install the drivers of
# all vendors together, so the driver alone does not mean that there is a GPU.
has_device() {
    case $1 in
        *lvp* | *swiftshader*) return 0 ;; # these compute in software
        *nvidia*) set -- /dev/nvidia* /dev/nvhost* ;;
        *dzn* | *dozen*) set -- /dev/dxg ;;
        *) set -- /dev/dri/renderD* /dev/kgsl-3d0 /dev/mali0 ;;
    esac
    for node; do
        [ ! -r "$node" ] || [ ! -w "$node" ] || return 0
    done
    return 1
}

library_of() {
    library=$(sed -n 's/.*"library_path"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p' "$1" 2>/dev/null) || return 1
    case $library in
        '') return 1 ;;
        /*) ;;
        */*) library=$(dirname "$1")/$library ;; # relative to the manifest
    esac
}

# Whether one of the loader's manifests names a driver that can run here. A manifest that the caller named is trusted
# to fit the machine.
has_driver() (
    named=${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}
    IFS=:
    if [ -n "$named" ]; then
        for entry in $named; do
            [ ! -d "$entry" ] || entry="$entry/*.json"
            for manifest in $entry; do
                if library_of "$manifest" && has_library "$library"; then exit 0; fi
            done
        done
        exit 1
    fi
    for folder in "${XDG_CONFIG_HOME:-${HOME:-}/.config}" ${XDG_CONFIG_DIRS:-/etc/xdg} /usr/local/etc /etc \
        "${XDG_DATA_HOME:-${HOME:-}/.local/share}" ${XDG_DATA_DIRS:-/usr/local/share:/usr/share} \
        /run/opengl-driver/share; do
        for manifest in "$folder"/vulkan/icd.d/*.json; do
            if library_of "$manifest" && has_device "${library##*/}" && has_library "$library"; then exit 0; fi
        done
    done
    exit 1
)

# Sets $missing to what is not there, of these three.
look() {
    missing=
    command -v cc >/dev/null || missing="$missing cc"
    has_library libvulkan.so.1 || missing="$missing libvulkan.so.1"
    has_driver || missing="$missing vulkan-driver"
}

# --- what installs it ------------------------------------------------------------------------------------------------

# The packages that hold one of the three. As driver it is Mesa's, which computes in software where there is no GPU.
packages() { # packages MANAGER WHAT
    case $1:$2 in
        apt-get:cc) echo gcc libc6-dev ;;
        apt-get:libvulkan.so.1) echo libvulkan1 ;;
        apt-get:vulkan-driver) echo mesa-vulkan-drivers ;;
        zypper:cc) echo gcc glibc-devel ;;
        zypper:libvulkan.so.1) echo libvulkan1 ;;
        zypper:vulkan-driver) echo libvulkan_lvp ;;
        dnf:cc) echo gcc ;;
        dnf:libvulkan.so.1) echo vulkan-loader ;;
        dnf:vulkan-driver) echo mesa-vulkan-drivers ;;
        pacman:cc) echo gcc ;;
        pacman:libvulkan.so.1) echo vulkan-icd-loader ;;
        pacman:vulkan-driver) echo vulkan-swrast ;;
        apk:cc) echo gcc musl-dev ;;
        apk:libvulkan.so.1) echo vulkan-loader ;;
        apk:vulkan-driver) echo mesa-vulkan-swrast ;;
    esac
}

# Sets $install to the command, to be run by root.
choose_install() {
    for manager in apt-get zypper dnf pacman apk none; do
        if command -v "$manager" >/dev/null; then break; fi
    done
    names=
    for word in $missing; do names="$names $(packages "$manager" "$word")"; done
    case $manager in
        apt-get)
            install="apt-get update -q; DEBIAN_FRONTEND=noninteractive"
            install="$install apt-get install -q -y --no-install-recommends$names"
            ;;
        dnf) install="dnf install -y --setopt=install_weak_deps=False$names" ;;
        pacman)
            # Fresh containers have no package lists yet. Others keep theirs, or the system would be half upgraded.
            install="pacman -S --needed --noconfirm$names"
            [ -e /var/lib/pacman/sync/core.db ] || install="pacman -Sy --needed --noconfirm$names"
            ;;
        zypper) install="zypper --non-interactive install --no-recommends$names" ;;
        apk) install="apk add$names" ;;
        none)
            fail "missing:$missing, and none of apt-get, zypper, dnf, pacman and apk is there to install it." \
                "Any driver will do, such as Mesa's lavapipe, which computes in software."
            ;;
    esac
}

check_cargo
look
[ -n "$missing" ] || exit 0

case $missing in
    *vulkan-driver*)
        [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] ||
            fail "VK_DRIVER_FILES or VK_ICD_FILENAMES is set, but names no driver that is there. Mend or unset it."
        ;;
esac
choose_install
say "missing:$missing"
if [ "$(id -u)" = 0 ]; then
    say "running: $install"
    sh -c "$install" >&2 || fail "the installation failed: see the messages above."
elif command -v sudo >/dev/null; then
    say "running: sudo sh -c '$install'"
    sudo sh -c "$install" >&2 || fail "the installation failed: see the messages above. Or run as root:" "  $install"
else
    fail "installing needs root, and there is no sudo. Run as root:" "  $install"
fi

look
[ -z "$missing" ] || fail "still missing after the installation:$missing"
