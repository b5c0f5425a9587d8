#!/bin/sh
# Give a test host what can't be had here (a GPU and k3s) as doubles. Run in the host as root; may be run again.
set -e
command_of() {
    printf '#!/bin/sh\n# TEST DOUBLE\n%s\n' "$2" > "/usr/local/bin/$1"
    chmod 755 "/usr/local/bin/$1"
}
ldconfig
printf 'gpus=2\nbusy=0\nnvml=0\ncuda=0\nsmi=2\npersistence=Enabled\n' > /etc/beta9-gpu-double
echo 550.1.1 > /etc/beta9-modinfo-double
: > /etc/beta9-kernel-log-double
echo Running > /etc/beta9-tailscale-double
# shellcheck disable=SC2016
command_of modinfo 'printf "filename:       /lib/modules/nvidia.ko\nlicense:        NVIDIA\nversion:        %s\n" "$(cat /etc/beta9-modinfo-double)"'
# shellcheck disable=SC2016
command_of modprobe '[ ! -d /sys/module/.away ] || mv /sys/module/.away /sys/module/nvidia'
# a container's clock can't be set, nor be kept in time
# shellcheck disable=SC2016
command_of timedatectl '[ "$*" != "set-ntp true" ] || exec rm -f /etc/ld.so.preload; exec /usr/bin/timedatectl "$@"'
# the kernel's log only, which a container has not
# shellcheck disable=SC2016
command_of journalctl 'case " $* " in *" -k "*) exec cat /etc/beta9-kernel-log-double ;; esac; exec /usr/bin/journalctl "$@"'
# shellcheck disable=SC2016
command_of tailscale 'printf "{\"BackendState\": \"%s\", \"Self\": {\"Online\": true}}" "$(cat /etc/beta9-tailscale-double)"'
cat > /etc/systemd/system/k3s.service <<'UNIT'
[Unit]
Description=TEST DOUBLE of k3s
[Service]
ExecStart=/usr/local/bin/k3s server
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable -q k3s
systemctl restart k3s
for n in 1 2; do
    device=/opt/pci-double/pci/devices/0000:0$n:00.0
    mkdir -p "$device"
    echo 0x10de > "$device/vendor"
    echo 0x030200 > "$device/class"
done
grep -q ' /sys/bus ' /proc/mounts || mount --bind /opt/pci-double /sys/bus
mkdir -p /opt/module-double/nvidia
echo 550.1.1 > /opt/module-double/nvidia/version
grep -q ' /sys/module ' /proc/mounts || mount --bind /opt/module-double /sys/module
systemctl try-restart --no-block beta9-agent 2>/dev/null || true
