#!/bin/sh
# Installs, upgrades and removes the Edgeloop daemon. May be run again at any time: configuration, models, secrets and
# recordings stay as they are.
#
#     sudo systemd/install.sh                       install or upgrade from this checkout, and start
#     sudo systemd/install.sh --extra gpu           cpu, gpu, rtx, jetson or openvino; found out unless given
#     sudo systemd/install.sh --uninstall           remove the daemon; configuration, models and recordings stay
#     sudo systemd/install.sh --uninstall --purge   remove these too
#
# For packages and tests: --root DIR installs below DIR and runs nothing, --source PATH_OR_NAME is what pip installs,
# --prefix DIR is where the program goes (/opt/edge), --python FILE makes the environment, --no-venv leaves the program as
# it is, --no-start neither enables nor starts.
set -eu

prefix=/opt/edge root= extra= here=$(cd "$(dirname "$0")" && pwd) python= action=install
source= with_venv=yes start=yes purge=no

fail() { echo "install.sh: $*" >&2; exit 1; }
say() { echo "  $*"; }

while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?--prefix needs a folder}; shift ;;
        --root) root=${2:?--root needs a folder}; shift ;;
        --extra) extra=${2:?--extra needs cpu, gpu, rtx, jetson or openvino}; shift ;;
        --source) source=${2:?--source needs a path or a package}; shift ;;
        --python) python=${2:?--python needs a file}; shift ;;
        --no-venv) with_venv=no ;;
        --no-start) start=no ;;
        --uninstall) action=uninstall ;;
        --purge) purge=yes ;;
        -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
    shift
done
case $prefix in /*) ;; *) fail "--prefix $prefix: expected a folder from the root on, such as /opt/edge" ;; esac
case ${extra:-cpu} in cpu | gpu | rtx | jetson | openvino) ;; *) fail "--extra $extra: expected cpu, gpu, rtx, jetson or openvino" ;; esac
[ "$purge" = no ] || [ "$action" = uninstall ] || fail "--purge goes with --uninstall"

units=$root/etc/systemd/system
config=$root/etc/edge
state=$root/var/lib/edge
# below another root nothing of this machine is touched
if [ -n "$root" ]; then live=no; else live=yes; fi
[ $live = no ] || [ "$(id -u)" = 0 ] || fail "this needs root: run it with sudo (the edge command itself does not)"
has_systemd() { [ $live = yes ] && [ -d /run/systemd/system ]; }

platform() {
    if [ -e "$root/etc/nv_tegra_release" ]; then echo jetson
    elif [ -e "$root/proc/driver/nvidia/version" ] || { [ $live = yes ] && [ -e /proc/driver/nvidia/version ]; }; then echo gpu
    else echo cpu
    fi
}

# a Python from 3.10 on; for the daemon also one that its user reaches: the unit hides /root and /home
find_python() {
    for name in ${python:-python3.12 python3.11 python3.10 python3.13 python3 /usr/bin/python3}; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2])' 2>/dev/null; then
            if [ $live = no ] || is_shared "$name"; then echo "$name"; return; fi
        fi
    done
    fail "no Python from 3.10 on with venv was found outside of home folders; run: apt install python3 python3-venv"
}

is_shared() {
    "$1" -c 'import os, pathlib, sys
files = [pathlib.Path(os.path.realpath(file)) for file in (sys.executable, os.__file__)]
folders = [folder for file in files for folder in file.parents]
private = {pathlib.Path("/root"), pathlib.Path("/home")}.intersection(folders)
sys.exit(bool(private) or not all(folder.stat().st_mode & 1 for folder in folders))'
}

install_program() {
    interpreter=$(find_python)
    # JetPack's own OpenCV and TensorRT are the system's
    if [ "$extra" = jetson ]; then options=--system-site-packages; else options=; fi
    if [ ! -x "$root$prefix/bin/python" ]; then
        say "making the environment $prefix with $("$interpreter" --version)"
        "$interpreter" -m venv $options "$root$prefix"
    fi
    say "installing ${source}[$extra]"
    "$root$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "${source}[$extra]"
}

# put FILE DESTINATION MODE: replace a file of ours, with the prefix in it
put() {
    sed "s|/opt/edge/|$prefix/|g" "$1" > "$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
}

install_files() {
    mkdir -p "$units" "$config/secrets" "$state/models" "$state/timing" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
    chmod 700 "$config/secrets"
    put "$here/edge.service" "$units/edge.service" 644
    put "$here/edge-build@.service" "$units/edge-build@.service" 644
    put "$here/edge.sysusers.conf" "$root/usr/lib/sysusers.d/edge.conf" 644
    put "$here/edge.tmpfiles.conf" "$root/usr/lib/tmpfiles.d/edge.conf" 644
    if [ -e "$config/edge.toml" ]; then
        say "kept $config/edge.toml; the new version with all keys is edge.toml.dist"
    else
        put "$here/edge.toml" "$config/edge.toml" 640
    fi
    put "$here/edge.toml" "$config/edge.toml.dist" 640
    for model in "$here"/../edge/models/*.onnx; do
        [ -e "$model" ] || continue
        name=$(basename "$model")
        if [ ! -e "$state/models/$name" ]; then
            cp "$model" "$state/models/$name"
            [ ! -e "${model%.onnx}.json" ] || cp "${model%.onnx}.json" "$state/models/"
        fi
    done
}

settle() {
    [ $live = yes ] || return 0
    systemd-sysusers /usr/lib/sysusers.d/edge.conf
    systemd-tmpfiles --create /usr/lib/tmpfiles.d/edge.conf
    chown -R edge:edge "$state/models" "$state/timing"
    chown root:edge "$config"/edge.toml "$config"/edge.toml.dist
    has_systemd || { say "no systemd runs here; start with: $prefix/bin/edge run /etc/edge/edge.toml"; return 0; }
    systemctl daemon-reload
    [ $start = yes ] || return 0
    # the service itself tries the configuration, with its own user, secrets and rights; it says when it is ready
    if ! systemctl restart edge.service; then
        journalctl -u edge.service -n 20 -o cat --no-pager >&2 || true
        fail "the service does not start yet; its last words are above; mend it, then: systemctl enable --now edge"
    fi
    systemctl enable edge.service
    say "running; see: systemctl status edge, journalctl -u edge -f"
}

uninstall() {
    if has_systemd; then systemctl disable --now edge.service 2>/dev/null || true; fi
    rm -f "$units/edge.service" "$units/edge-build@.service"
    rm -f "$root/usr/lib/sysusers.d/edge.conf" "$root/usr/lib/tmpfiles.d/edge.conf"
    # only what this script made: an environment, never a folder that merely has its name
    if [ -e "$root$prefix/pyvenv.cfg" ]; then rm -rf "$root$prefix"; fi
    if has_systemd; then systemctl daemon-reload; fi
    if [ $purge = yes ]; then
        rm -rf "$config" "$state"
        say "configuration, models and recordings are gone"
    else
        say "kept $config and $state; --purge removes them"
    fi
}

if [ $action = uninstall ]; then uninstall; exit 0; fi
extra=${extra:-$(platform)}
source=${source:-$(dirname "$here")}
say "Edgeloop for $extra below ${root:-/}"
if [ $with_venv = yes ]; then install_program; fi
install_files
settle
