#!/bin/sh
# Installs, upgrades and removes the Edgeloop daemon. May be run again at any time: configuration, models, secrets and
# recordings stay as they are.
#
#     sudo systemd/install.sh                       install or upgrade from this checkout, and start
#     sudo systemd/install.sh --extra gpu,events    cpu, gpu, rtx, jetson or openvino, found out unless given; and with commas
#                                                   events (MQTT), webrtc, nvml, all
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
        --extra) extra=${2:?--extra needs a list such as gpu,events}; shift ;;
        --source) source=${2:?--source needs a path or a package}; shift ;;
        --python) python=${2:?--python needs a file}; shift ;;
        --no-venv) with_venv=no ;;
        --no-start) start=no ;;
        --uninstall) action=uninstall ;;
        --purge) purge=yes ;;
        -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
    shift
done
case $prefix in /*) ;; *) fail "--prefix $prefix: expected a folder from the root on, such as /opt/edge" ;; esac
has_platform=no
for one in $(echo "$extra" | tr ',' ' '); do
    case $one in
        cpu | gpu | rtx | jetson | openvino | all) has_platform=yes ;;
        events | webrtc | nvml) ;;
        *) fail "--extra $extra: expected cpu, gpu, rtx, jetson or openvino, and with commas between them events, webrtc, nvml, all" ;;
    esac
done
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
    case ,$extra, in *,jetson,*) options=--system-site-packages ;; *) options= ;; esac
    if [ ! -x "$root$prefix/bin/python" ]; then
        say "making the environment $prefix with $("$interpreter" --version)"
        "$interpreter" -m venv $options "$root$prefix"
    fi
    say "installing ${source}[$extra]"
    "$root$prefix/bin/python" -m pip install --quiet --disable-pip-version-check \
        --upgrade --upgrade-strategy eager "${source}[$extra]"
}

# put FILE DESTINATION MODE: replace a file of ours, with the prefix in it
put() {
    sed "s|/opt/edge/|$prefix/|g" "$1" > "$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
}

# as the service's user, who owns the state: a link that it left there leads no further than its own rights
as_edge() { if [ $live = yes ]; then runuser -u edge -- "$@"; else "$@"; fi; }

# give FILE DESTINATION: a file of ours for the service's user, where there is none and no link
give() {
    if [ -e "$2" ] || [ -L "$2" ]; then return 0; fi
    as_edge sh -c 'umask 027; set -C; cat > "$1"' sh "$2" < "$1" || fail "$2 cannot be written by the user edge"
}

install_models() {
    for folder in "$state" "$state/models" "$state/timing"; do
        [ ! -L "$folder" ] || fail "$folder is a link; put a folder there, or mount one (mount --bind)"
    done
    # on a running machine systemd-tmpfiles has made them
    [ $live = yes ] || mkdir -p "$state/models" "$state/timing"
    # in a checkout, and in an installed package
    for model in "$here"/../edge/models/*.onnx "$here"/../models/*.onnx; do
        [ -e "$model" ] || continue
        name=$(basename "$model" .onnx)
        [ ! -e "$state/models/$name.onnx" ] || continue
        give "$model" "$state/models/$name.onnx"
        [ ! -e "${model%.onnx}.json" ] || give "${model%.onnx}.json" "$state/models/$name.json"
    done
}

# devices UNIT: what this machine has beyond what the unit lets in, as lines of a drop-in
devices() {
    for node in "$root"/dev/nvmap "$root"/dev/nvgpu/*/* "$root"/dev/host1x-fence "$root"/dev/nvhost-* "$root"/dev/nvsciipc \
        "$root"/dev/v4l2-nv* "$root"/dev/capture-vi-channel* "$root"/dev/capture-isp-channel* "$root"/dev/dma_heap/* \
        "$root"/dev/nvidia[0-9]* "$root"/dev/nvidiactl "$root"/dev/nvidia-* "$root"/dev/nvidia-caps/* "$root"/dev/accel/*; do
        [ -e "$node" ] && [ ! -d "$node" ] || continue
        name=${node#"$root"}
        case $name in *[!A-Za-z0-9/_.-]*) continue ;; esac
        grep -qx "DeviceAllow=$name rw" "$1" || echo "DeviceAllow=$name rw"
    done
}

has_argus() {
    for file in "$root"/tmp/argus_socket "$root"/etc/systemd/system/nvargus-daemon.service \
        "$root"/lib/systemd/system/nvargus-daemon.service "$root"/usr/lib/systemd/system/nvargus-daemon.service; do
        if [ -e "$file" ]; then return 0; fi
    done
    return 1
}

# dropin UNIT: what this machine's cameras and GPUs need, empty where the unit has it all
dropin() {
    # CSI cameras of a Jetson speak to a daemon whose socket lies in /tmp, which the unit has for itself
    if [ "$1" = edge.service ] && has_argus; then
        echo "[Unit]"
        echo "After=nvargus-daemon.service"
        echo "[Service]"
        echo "BindReadOnlyPaths=-/tmp/argus_socket"
    else
        echo "[Service]"
    fi
    # without a screen nobody has loaded CUDA's module, and the unit may not
    if [ -x "$root/usr/bin/nvidia-modprobe" ] && [ "$(platform)" = gpu ]; then
        echo "ExecStartPre=+-/usr/bin/nvidia-modprobe -c 0 -u"
    fi
    devices "$here/$1"
}

install_devices() {
    for unit in edge.service edge-build@.service; do
        folder=$units/$unit.d lines=$(dropin "$unit")
        rm -f "$folder/10-devices.conf"
        if [ "$lines" = "[Service]" ]; then rmdir "$folder" 2>/dev/null || true; continue; fi
        mkdir -p "$folder"
        echo "# Made by install.sh for this machine; run it again when devices or drivers change." > "$folder/10-devices.conf"
        echo "$lines" >> "$folder/10-devices.conf"
        say "$unit gets for this machine, in $folder/10-devices.conf:"
        echo "$lines" | sed -n 's/^[A-Z]/    &/p'
    done
}

install_files() {
    mkdir -p "$units" "$config/secrets" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
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
    install_devices
}

# the user of the service, and its folders
settle_user() {
    [ $live = yes ] || return 0
    systemd-sysusers /usr/lib/sysusers.d/edge.conf
    systemd-tmpfiles --create /usr/lib/tmpfiles.d/edge.conf
}

settle() {
    [ $live = yes ] || return 0
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
    for unit in edge.service edge-build@.service; do
        rm -f "$units/$unit" "$units/$unit.d/10-devices.conf"
        rmdir "$units/$unit.d" 2>/dev/null || true
    done
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
if [ $has_platform = no ]; then extra=$(platform)${extra:+,$extra}; fi
source=${source:-$(dirname "$here")}
say "Edgeloop for $extra below ${root:-/}"
if [ $with_venv = yes ]; then install_program; fi
install_files
settle_user
install_models
settle
