#!/bin/sh
# Make a test host one that has GPUs on its bus and no driver: TEST DOUBLES of the PCI bus, of the list of loaded modules and of modprobe.
# GPUS: number, DEVICE: PCI device id, SWITCHES: NVSwitches. Run in the host as root; again after it was restarted.
set -e
gpus=${GPUS:-2} device=${DEVICE:-0x2330} switches=${SWITCHES:-0}
rm -rf /opt/pci-double/pci/devices
mkdir -p /opt/pci-double/pci/devices /opt/module-double
add() {
    mkdir -p "/opt/pci-double/pci/devices/$1"
    echo 0x10de > "/opt/pci-double/pci/devices/$1/vendor"
    echo "$2" > "/opt/pci-double/pci/devices/$1/class"
    echo "$3" > "/opt/pci-double/pci/devices/$1/device"
}
n=1
while [ $n -le "$gpus" ]; do add "0000:0$n:00.0" 0x030200 "$device"; n=$((n + 1)); done
n=1
while [ $n -le "$switches" ]; do add "0000:8$n:00.0" 0x068000 0x22a3; n=$((n + 1)); done
grep -q ' /sys/bus ' /proc/mounts || mount --bind /opt/pci-double /sys/bus
grep -q ' /sys/module ' /proc/mounts || mount --bind /opt/module-double /sys/module
printf 'gpus=%s\nbusy=0\nnvml=0\ncuda=0\nsmi=%s\npersistence=Disabled\n' "$gpus" "$gpus" > /etc/beta9-gpu-double
cat > /usr/local/sbin/modprobe <<'DOUBLE'
#!/bin/sh
# A TEST DOUBLE of modprobe: what the kernel would load is shown as loaded, unless /etc/beta9-modprobe-double says why not
[ -e /etc/beta9-modprobe-double ] && { cat /etc/beta9-modprobe-double >&2; exit 1; }
version=$(modinfo -F version nvidia) || { echo "modprobe: FATAL: Module nvidia not found in directory /lib/modules/$(uname -r)" >&2; exit 1; }
mkdir -p /opt/module-double/nvidia
echo "$version" > /opt/module-double/nvidia/version
DOUBLE
chmod 755 /usr/local/sbin/modprobe
