"""Role nvidia on real hosts: real apt, dpkg, systemd, modinfo and reboots. Doubles: GPUs on the bus, what the kernel has loaded, and
packages of NVIDIA's names in a signed local repository. At the end Debian's own packages.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from tests.e2e.test_1_onboard import recap

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLE = "tests/e2e/nvidia_role.yml"
DOUBLES = ROOT / "tests/doubles/gpu"
KERNEL = os.uname().release
OLD, NEW, OTHER_BRANCH = "580.1.1", "580.2.2", "590.1.1"
STATE = """
dpkg-query --show --showformat='${Package} ${Version} ${db:Status-Abbrev}\\n' | sort
find /etc/apt /etc/modprobe.d /etc/cdi /var/lib/beta9 -type f 2>/dev/null | sort | xargs -r sha256sum"""


class Gpus:
    """A host with GPUs on its bus, beside the testbed's own."""

    def __init__(self, bed, host, repository):
        self.bed, self.host, self.repository = bed, host, repository
        self.variables = {
            "nvidia_version": OLD,
            "nvidia_repository_url": repository + "/driver/",
            "nvidia_repository_key_url": repository + "/key.asc",
            "nvidia_repository_key_fingerprint": self.fingerprint,
            "nvidia_toolkit_repository_url": repository + "/toolkit/",
            "nvidia_toolkit_key_url": repository + "/key.asc",
            "nvidia_toolkit_key_fingerprint": self.fingerprint,
        }

    fingerprint = ""

    def sh(self, script, check=True):
        return self.bed.sh(self.host, script, check)

    def equip(self, **environment):
        """Put GPUs on the bus; again after the host was restarted."""
        exports = "".join("export %s=%s\n" % entry for entry in environment.items())
        self.sh(exports + (DOUBLES / "equip_bare.sh").read_text())

    def bare(self, **environment):
        """Take away what the role installs."""
        self.sh("""
            rm -f /etc/beta9-dkms-double-fails /etc/beta9-modprobe-double /usr/bin/nvidia-uninstall
            umount /var/cache/apt/archives 2>/dev/null; umount /sys/firmware 2>/dev/null
            held=$(apt-mark showhold); [ -z "$held" ] || apt-mark unhold $held >/dev/null
            names=$(dpkg-query --show --showformat='${Package} ${Version}\\n' | sed -n '/double/s/ .*//p; /^\\(lib\\)\\?nvidia/s/ .*//p; /^libcuda1 /s/ .*//p')
            [ -z "$names" ] || dpkg --purge --force-all $names >/dev/null 2>&1
            rm -rf /etc/apt/sources.list.d/beta9-* /etc/apt/keyrings/beta9-* /etc/apt/preferences.d/beta9-* /etc/modprobe.d/beta9-* /var/lib/beta9
            rm -rf /lib/modules/*/updates/dkms /opt/module-double/* /etc/cdi /var/run/cdi /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.*
            ldconfig; systemctl daemon-reload""")
        self.equip(**environment)

    def play(self, *arguments, playbook=ROLE, health=False, **variables):
        return self.bed.play(playbook, "-l", self.host, "-e", json.dumps(dict(self.variables, **variables)), *arguments, health=health)

    def serve(self):
        """Have the repository served, as it is between tests."""
        start = "systemd-run -q --unit packages --working-directory=/srv/packages python3 -m http.server 8000"
        self.bed.sh(self.bed.gateway, "systemctl is-active -q packages || { %s; sleep 1; }" % start)

    def state(self):
        return self.sh(STATE)

    def loaded(self):
        return self.sh("cat /sys/module/nvidia/version 2>/dev/null || true")

    def held(self):
        return set(self.sh("apt-mark showhold").split())


@pytest.fixture(scope="module")
def repository(testbed, tmp_path_factory):
    """A signed repository on the gateway host; its address."""
    folder = tmp_path_factory.mktemp("packages") / "repository"
    options = [word for version in (OLD, NEW, OTHER_BRANCH) for word in ("--driver", version)] + ["--toolkit", "1.17.8", "--toolkit", "1.20.0"]
    subprocess.run([sys.executable, str(DOUBLES / "build_packages.py"), str(folder), "--kernel", KERNEL, *options], check=True)
    testbed.sh(testbed.gateway, "systemctl stop packages 2>/dev/null; rm -rf /srv/packages", check=False)
    subprocess.run(["podman", "cp", str(folder), testbed.gateway + ":/srv/packages"], check=True, capture_output=True)
    testbed.sh(testbed.gateway, "systemd-run -q --unit packages --working-directory=/srv/packages python3 -m http.server 8000")
    Gpus.fingerprint = (folder / "fingerprint").read_text()
    address = json.loads(testbed.inventory.read_text())["all"]["children"]["beta9_gateway"]["hosts"][testbed.gateway]["ansible_host"]
    yield "http://%s:8000" % address
    testbed.sh(testbed.gateway, "systemctl stop packages", check=False)


@pytest.fixture(scope="module", params=[pytest.param(0, id="debian12"), pytest.param(1, id="debian13", marks=pytest.mark.long)])
def host(request, testbed, repository):
    """Each of both distributions in turn."""
    gpus = Gpus(testbed, testbed.workers[request.param], repository)
    gpus.sh("command -v modinfo >/dev/null || { apt-get -qq update; apt-get -qq install -y --no-install-recommends kmod >/dev/null 2>&1; }")
    gpus.bare()
    yield gpus
    gpus.bare(GPUS=0)
    gpus.sh("umount /sys/bus /sys/module; rm -rf /opt/pci-double /opt/module-double /etc/beta9-gpu-double /usr/local/sbin/modprobe")


def plain(output):
    """Return the output without its line breaks: messages are wrapped, and quotes in them doubled."""
    return " ".join(output.split()).replace("''", "'")


def changed(output, host):
    return recap(output)[host.host]["changed"]


def test_host_without_gpu(host):
    host.equip(GPUS=0)
    before = host.state()
    status, output = host.play()
    assert status == 0 and changed(output, host) == 0 and host.state() == before, output
    status, output = host.play("-e", '{"nvidia_required": true}')
    assert status != 0 and "nvidia_required" in output and "found none" in output, output
    host.equip()


def test_check_on_a_bare_host_tells_and_writes_nothing(host):
    before = host.state()
    status, output = host.play("--check", "--diff")
    assert status == 0 and changed(output, host) >= 5, output
    assert "+nvidia-driver-cuda" in output and "blacklist nouveau" in output
    assert host.state() == before


REFUSED = {
    "distribution": ("sed -i 's/^ID=.*/ID=slackware/' /usr/lib/os-release", {}, ["one of debian 12", "slackware", "beta9_nvidia: false"]),
    "gpu-too-old": ("echo 0x102d > /opt/pci-double/pci/devices/0000:01:00.0/device", {}, ["kepler", "418 to 470", "branch 580", "too old"]),
    "gpu-too-new": (
        "echo 0x2901 > /opt/pci-double/pci/devices/0000:01:00.0/device",
        {"nvidia_source": "distribution", "nvidia_version": ""},
        ["blackwell", "570 or newer"],
    ),
    "branch-too-new": (
        "echo 0x1db6 > /opt/pci-double/pci/devices/0000:01:00.0/device",
        {"nvidia_branch": "590", "nvidia_version": ""},
        ["volta", "418 to 580", "branch 590"],
    ),
    "secure-boot": (
        "mkdir -p /opt/firmware-double/efi/efivars; printf '\\6\\0\\0\\0\\1' > /opt/firmware-double/efi/efivars/SecureBoot-8be4df61; "
        "mount --bind /opt/firmware-double /sys/firmware",
        {},
        ["Secure Boot", "mokutil --import", "Enroll MOK"],
    ),
    "fingerprint": (
        "true",
        {"nvidia_repository_key_fingerprint": "0123456789ABCDEF0123456789ABCDEF01234567"},
        ["expected fingerprint 0123456789ABCDEF", "Nothing was changed"],
    ),
    "other-key": ("true", {"nvidia_repository_key_url": "OTHER"}, ["signing key", "expected fingerprint", "Do not trust"]),
    "no-fingerprint": ("true", {"nvidia_repository_key_fingerprint": "abc"}, ["40 hexadecimal digits", "abc"]),
    "no-internet": (
        "true",
        {"nvidia_repository_key_url": "http://127.0.0.1:9/key"},
        ["http://127.0.0.1:9/key", "Connection refused", "mirror", "Nothing was changed"],
    ),
    "no-index": ("true", {"nvidia_repository_url": "http://127.0.0.1:9/driver"}, ["http://127.0.0.1:9/driver/InRelease", "Nothing was changed"]),
    "version": ("true", {"nvidia_version": "570.1.1"}, ["nvidia_version", "branch 580", "570.1.1"]),
}
SAMPLE = ("gpu-too-old", "secure-boot", "other-key")  # of REFUSED, for make test


@pytest.mark.parametrize(
    ("prepare", "variables", "words"),
    [pytest.param(*case, id=name, marks=[] if name in SAMPLE else [pytest.mark.long]) for name, case in REFUSED.items()],
)
def test_refused_before_anything_is_changed(host, prepare, variables, words):
    host.sh("cp -p /usr/lib/os-release /root/os-release; " + prepare)
    before = host.state()
    try:
        filled = {name: host.repository + "/other.asc" if value == "OTHER" else value for name, value in variables.items()}
        status, output = host.play(**filled)
        text = plain(output)
        assert status != 0 and all(word in text for word in words), output
        assert changed(output, host) == 0 and host.state() == before, output
    finally:
        host.sh("cp -p /root/os-release /usr/lib/os-release; umount /sys/firmware 2>/dev/null; true")
        host.equip()


@pytest.mark.parametrize(
    ("prepare", "gateway", "variables", "words"),
    [
        pytest.param(
            "mount -t tmpfs -o size=8k tmpfs /var/cache/apt/archives; mkdir -p /var/cache/apt/archives/partial",
            "",
            {},
            ["free disk space", "Nothing was installed"],
            marks=pytest.mark.long,
        ),
        pytest.param(
            "true", "systemctl stop packages", {}, ["download: expected all packages", "Nothing was installed", "mirror"], marks=pytest.mark.long
        ),
        ("true", "", {"nvidia_version": "580.9.9"}, ["version 580.9.9", "580.1.1-1~double", "580.2.2-1~double"]),
    ],
    ids=["disk-full", "network-lost", "unknown-version"],
)
def test_fails_at_its_step_with_packages_as_before(host, prepare, gateway, variables, words):
    """The repository is there by then; not one package is."""
    script = "dpkg-query --show --showformat='${Package} ${Version} ${db:Status-Abbrev}\\n' | sort"
    before = host.sh(script)
    host.sh(prepare)
    host.bed.sh(host.bed.gateway, gateway or "true")
    try:
        status, output = host.play(**variables)
        assert status != 0 and all(word in " ".join(output.split()) for word in words), output
        assert host.sh(script) == before
    finally:
        host.sh("umount /var/cache/apt/archives 2>/dev/null; true")
        host.serve()


def test_install_loads_holds_and_verifies(host):
    status, output = host.play()
    assert status == 0, output
    assert host.loaded() == OLD and "Verify that CUDA finds the GPUs" in output
    assert {
        "nvidia-driver-cuda",
        "nvidia-kernel-open-dkms",
        "libcuda1",
        "nvidia-persistenced",
        "nvidia-container-toolkit",
        "libnvidia-container1",
    } <= host.held()
    assert host.sh("modinfo -F version nvidia; cat /etc/modprobe.d/beta9-nvidia-nouveau.conf").splitlines()[0] == OLD
    assert host.sh("systemctl is-enabled nvidia-persistenced; cat /var/run/cdi/nvidia.yaml | grep -c name:").split() == ["enabled", "3"]


@pytest.mark.long
def test_held_packages_stay_where_everything_else_is_upgraded(host):
    """A newer version is in the repository, and the pin is out of the way."""
    host.sh("mv /etc/apt/preferences.d/beta9-nvidia-driver /root/pin; apt-get -qq update")
    try:
        assert "Inst nvidia" not in host.sh("apt-get -s -q dist-upgrade")
        assert "Inst nvidia-driver-cuda" in host.sh("apt-get -s -q --ignore-hold dist-upgrade"), "without the hold it would come"
    finally:
        host.sh("mv /root/pin /etc/apt/preferences.d/beta9-nvidia-driver")


@pytest.mark.long
def test_blacklist_reaches_the_initramfs(host):
    """Real initramfs-tools. Killed between the file and the image, the next run completes it."""
    host.sh(
        """
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends initramfs-tools >/dev/null 2>&1
        echo RESUME=none > /etc/initramfs-tools/conf.d/resume; echo CONFIG_RD_GZIP=y > /boot/config-%s; touch /boot/vmlinuz-%s
        touch -d '1 hour ago' /etc/modprobe.d/beta9-nvidia-nouveau.conf; mv /etc/modprobe.d/beta9-nvidia-nouveau.conf /root/
        update-initramfs -c -k %s >/dev/null 2>&1; ls /boot/initrd.img-%s; mv /root/beta9-nvidia-nouveau.conf /etc/modprobe.d/"""
        % ((KERNEL,) * 4)
    )
    inside = "lsinitramfs /boot/initrd.img-%s | grep -c beta9-nvidia-nouveau || true" % KERNEL
    try:
        assert host.sh(inside) == "0"
        status, output = host.play("--check")
        assert status == 0 and changed(output, host) == 1 and host.sh(inside) == "0", output
        status, output = host.play()
        assert status == 0 and changed(output, host) == 1 and host.sh(inside) == "1", output
        status, output = host.play()
        assert status == 0 and changed(output, host) == 0, output
    finally:
        host.sh("rm -f /boot/initrd* /boot/config-* /boot/vmlinuz-*; apt-get -qq purge -y initramfs-tools initramfs-tools-core >/dev/null 2>&1; true")


def test_second_run_changes_nothing(host):
    before = host.state()
    for mode in ([], ["--check"]):
        status, output = host.play("--diff", *mode)
        assert status == 0 and changed(output, host) == 0 and "+++" not in output, output
    assert host.state() == before


@pytest.mark.long
def test_second_run_needs_no_network(host):
    host.bed.sh(host.bed.gateway, "systemctl stop packages")
    try:
        status, output = host.play()
        assert status == 0 and changed(output, host) == 0, output
    finally:
        host.serve()


@pytest.mark.long
def test_working_driver_is_left_as_it_is(host):
    """Another version is desired, and nobody asked for an upgrade."""
    status, output = host.play(nvidia_version=NEW)
    assert status == 0 and changed(output, host) == 0 and "driver 580.1.1 was installed from packages and is left as it is" in plain(output), output


def test_module_that_does_not_build_and_the_run_after_it(host):
    host.sh("touch /etc/beta9-dkms-double-fails")
    status, output = host.play(nvidia_version=NEW, nvidia_upgrade=True, nvidia_reboot="never")
    assert status != 0 and "Bad return status for module build" in output and "make.log" in output, output
    assert host.loaded() == OLD, "what runs goes on"
    host.sh("rm /etc/beta9-dkms-double-fails")
    status, output = host.play(nvidia_reboot="never")  # no upgrade asked for: what was begun is finished all the same
    assert status == 0 and not host.sh("dpkg --audit"), output
    assert host.sh("dpkg-query --show --showformat='${Version}' nvidia-kernel-open-dkms") == NEW + "-1~double"
    assert {"nvidia-driver-cuda", "libcuda1", "nvidia-kernel-open-dkms"} <= host.held()


@pytest.mark.long
def test_pending_reboot_is_told_on_every_run(host):
    words = "reboot pending: the loaded driver is %s, the installed one %s" % (OLD, NEW)
    for _again in range(2):
        status, output = host.play(nvidia_reboot="never")
        assert status == 0 and words in plain(output) and changed(output, host) == 0, output
    assert host.loaded() == OLD


class Machine(threading.Thread):
    """Starts a host again when it went down, with what its kernel would then have loaded."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.host, self.starts, self.over = host, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.2):
            shown = subprocess.run(["podman", "inspect", "--format", "{{.State.Running}}", self.host.host], capture_output=True, text=True, check=False)
            if shown.stdout.strip() == "false":
                subprocess.run(["podman", "start", self.host.host], check=True, capture_output=True)
                self.starts += 1
                self.host.sh("modinfo -F version nvidia > /opt/module-double/nvidia/version; systemctl is-system-running --wait >/dev/null || true")
                self.host.equip()
                self.host.sh("systemctl restart nvidia-persistenced 2>/dev/null || true")


@pytest.fixture
def machine(host):
    found = Machine(host)
    yield found
    found.over.set()
    found.join()


@pytest.mark.long
def test_reboots_when_the_loaded_driver_is_not_the_installed_one(host, machine):
    status, output = host.play()
    assert status == 0 and machine.starts == 1 and host.loaded() == NEW, output
    status, output = host.play()
    assert status == 0 and changed(output, host) == 0 and machine.starts == 1, output


@pytest.mark.long
def test_policy_always_reboots_once_after_an_installation(host, machine):
    host.sh("touch /lib/modules/%s/updates/dkms/nvidia.ko" % KERNEL)  # as an installation just now would
    status, output = host.play(nvidia_reboot="always")
    assert status == 0 and machine.starts == 1, output
    status, output = host.play(nvidia_reboot="always")
    assert status == 0 and changed(output, host) == 0 and machine.starts == 1, output


@pytest.mark.long
def test_kernel_that_refuses_the_module(host):
    host.sh("rm -rf /opt/module-double/nvidia; echo \"modprobe: ERROR: could not insert 'nvidia': Key was rejected by service\" > /etc/beta9-modprobe-double")
    status, output = host.play()
    assert status != 0 and "Key was rejected by service" in output and "Secure Boot" in output, output
    host.sh("rm /etc/beta9-modprobe-double")
    status, output = host.play()
    assert status == 0 and host.loaded() == NEW, output


@pytest.mark.long
def test_killed_in_the_middle(host):
    host.bare()
    process = subprocess.Popen(
        host.bed.command(ROLE, "-l", host.host, "-e", json.dumps(host.variables)),
        cwd=ROOT,
        env=host.bed.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and "libcuda1" not in host.sh("ls /var/lib/dpkg/info"):
        time.sleep(0.05)
    host.sh("pkill -KILL -f apt-get; pkill -KILL -x dpkg; true", check=False)
    process.kill()
    process.wait()
    status, output = host.play()
    assert status == 0 and host.loaded() == OLD and not host.sh("dpkg --audit"), output
    assert {"nvidia-driver-cuda", "nvidia-persistenced", "nvidia-kernel-open-dkms"} <= host.held()


@pytest.mark.long
def test_branch_alone_takes_its_newest_version(host):
    host.bare()
    status, output = host.play(nvidia_version="", nvidia_toolkit=False)
    assert status == 0 and host.loaded() == NEW, output  # 590.1.1 is in the repository as well


@pytest.mark.long
def test_nvswitches_bring_the_fabric_manager_of_the_same_version(host):
    host.bare(SWITCHES=4)
    host.sh("sed -i s/^cuda=.*/cuda=802/ /etc/beta9-gpu-double")  # as long as it does not run
    status, output = host.play()
    assert status == 0 and host.sh("systemctl is-active nvidia-fabricmanager; nv-fabricmanager --version").split()[0] == "active", output
    host.sh("sed -i s/580.1.1/580.9.9/ /usr/bin/nv-fabricmanager")
    status, output = host.play()
    assert status != 0 and "fabric manager: expected active, version 580.1.1, found version 580.9.9, active" in " ".join(output.split()), output


@pytest.mark.long
def test_toolkit_without_its_refresh_unit(host):
    host.bare()
    status, output = host.play(nvidia_toolkit_version="1.17.8")
    assert status == 0 and "name: all" in host.sh("cat /etc/cdi/nvidia.yaml"), output
    host.sh("sed -i s/^gpus=.*/gpus=1/ /etc/beta9-gpu-double")
    status, output = host.play()
    assert "nvidia_cdi" not in output and changed(output, host) == 1, output
    host.sh("sed -i s/^gpus=.*/gpus=2/ /etc/beta9-gpu-double")
    status, output = host.play(nvidia_upgrade=True, nvidia_toolkit_version="1.20.0")
    assert status == 0 and host.sh("ls /etc/cdi /var/run/cdi").split() == ["/etc/cdi:", "/var/run/cdi:", "nvidia.yaml"], output


def test_driver_of_the_run_installer_is_left_alone(host):
    host.bare()
    host.sh("""
        cd /usr/lib/x86_64-linux-gnu; touch libnvidia-ml.so.570.1.1 /usr/bin/nvidia-uninstall; ln -sf libnvidia-ml.so.570.1.1 libnvidia-ml.so.1
        mkdir -p /opt/module-double/nvidia; echo 570.1.1 > /opt/module-double/nvidia/version""")
    before = host.state()
    status, output = host.play("--check", nvidia_toolkit=False)
    assert status == 0 and "570.1.1 was installed by NVIDIA's .run installer and is left as it is" in plain(output) and changed(output, host) == 0, output
    status, output = host.play(nvidia_upgrade=True)
    assert status != 0 and "nvidia-uninstall" in output and changed(output, host) == 0 and host.state() == before, output


@pytest.mark.long
def test_switch_and_summary_of_onboarding(host, testbed):
    """The role's place in onboarding: its switch, and a pending reboot in the summary."""
    host.bare()
    status, output = host.play(playbook="onboard_worker.yml", beta9_nvidia=False)
    assert status == 0 and host.sh("find /etc/apt -name 'beta9-*'") == "" and "NVIDIA" not in output, output
    assert "nvidia" not in host.state()
    host.sh("mkdir -p /opt/module-double/nouveau")
    status, output = host.play(playbook="onboard_worker.yml", nvidia_reboot="never")
    assert status == 0 and "reboot pending: nouveau is loaded, the installed driver %s is not" % OLD in plain(output), output
    status, output = host.play(playbook="onboard_worker.yml", nvidia_reboot="never")
    assert status == 0 and changed(output, host) == 0 and "reboot pending" in output, output
