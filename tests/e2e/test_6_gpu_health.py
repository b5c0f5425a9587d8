"""Checks U01 to U08 against doubles of a GPU host in every state, and against Debian's own NVIDIA packages on a host without a GPU."""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOUBLES = ROOT / "tests/doubles/gpu"
CHECKS = ["U01", "U02", "U03", "U04", "U05", "U06", "U07", "U08"]
# just enough of k3s for U07 and what it requires
K3S = """#!/bin/sh
# TEST DOUBLE of k3s with one node that offers as many GPUs as /etc/beta9-allocatable-double says
case "$*" in
  --version) echo "k3s version v0-double" ;;
  *readyz*) echo "readyz check passed" ;;
  *"get nodes"*) printf '{"items": [{"metadata": {"name": "node"}, "status": {"conditions": %s, "allocatable": {"nvidia.com/gpu": "%s"}}}]}' \\
      '[{"type": "Ready", "status": "True"}]' "$(cat /etc/beta9-allocatable-double)" ;;
  server) exec sleep infinity ;;
esac
"""


def statuses(entry):
    return {verdict["id"]: (verdict["status"] + (":" + verdict["code"] if verdict["code"] else "")) for verdict in entry["verdicts"]}


def roots(entry):
    return [verdict["id"] for verdict in entry["verdicts"] if verdict["root"]]


class GpuHost:
    """An onboarded worker whose GPUs are doubles."""

    def __init__(self, bed, host):
        self.bed, self.host = bed, host

    def sh(self, script, check=True):
        return self.bed.sh(self.host, script, check)

    def onboard(self):
        status, output = self.bed.play("onboard_worker.yml", "-l", self.host, "-e", "beta9_nvidia=false")
        assert status == 0, output

    def equip(self, gpus, folder):
        """Put GPUs, a loaded driver and its libraries in place, as they are where all is well."""
        library = folder / "libnvidia-double.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(DOUBLES / "nvidia_double.c")], check=True)
        for source, target in (
            (library, "/usr/local/lib/libnvidia-ml.so.550.1.1"),
            (library, "/usr/local/lib/libcuda.so.550.1.1"),
            (DOUBLES / "nvidia-smi", "/usr/local/bin/nvidia-smi"),
        ):
            subprocess.run(["podman", "cp", str(source), "%s:%s" % (self.host, target)], check=True, capture_output=True)
        (folder / "k3s").write_text(K3S)
        subprocess.run(["podman", "cp", str(folder / "k3s"), self.host + ":/usr/local/bin/k3s"], check=True, capture_output=True)
        self.sh("export GPUS=%d\n" % gpus + (DOUBLES / "equip_bare.sh").read_text())
        self.sh(
            """
            cd /usr/local/lib; for n in libnvidia-ml libcuda; do ln -sf $n.so.550.1.1 $n.so.1; done; ldconfig
            mkdir -p /opt/module-double/nvidia; rm -rf /opt/module-double/nouveau; echo 550.1.1 > /opt/module-double/nvidia/version
            chmod 755 /usr/local/bin/nvidia-smi /usr/local/bin/k3s; echo %d > /etc/beta9-allocatable-double
            printf '#!/bin/sh\\n# TEST DOUBLE\\nprintf "version: 550.1.1\\\\nlicense: NVIDIA\\\\n"\\n' > /usr/local/sbin/modinfo
            printf '#!/bin/sh\\n# TEST DOUBLE: the kernel'"'"'s log only\\ncase " $* " in *" -k "*) exec cat /etc/beta9-kernel-log-double ;; esac
exec /usr/bin/journalctl "$@"\\n' > /usr/local/sbin/journalctl
            : > /etc/beta9-kernel-log-double
            printf '[Service]\\nExecStart=/usr/local/bin/k3s server\\n' > /etc/systemd/system/k3s.service
            chmod 755 /usr/local/sbin/*; systemctl daemon-reload; systemctl start k3s"""
            % gpus
        )
        self.register()

    def register(self):
        """Have the agent tell the gateway what is there now."""
        self.sh("timeout 40 systemctl restart beta9-agent")

    def role(self, **variables):
        """Run role nvidia."""
        return self.bed.play("tests/e2e/nvidia_role.yml", "-l", self.host, "-e", json.dumps(variables))

    def check(self, folder, checks=tuple(CHECKS), **variables):
        """Return the host's entry of health.json."""
        desired = {"health_check_directory": str(folder), "health_check_only": list(checks), "beta9_k3s": True}
        _status, output = self.bed.play("health_check.yml", "-l", self.host, "-e", json.dumps(dict(desired, **variables)))
        path = folder / "health.json"
        assert path.exists(), output
        return json.loads(path.read_text())["hosts"][0]


@pytest.fixture(scope="module")
def gpu_host(testbed):
    host = GpuHost(testbed, testbed.workers[0])
    host.onboard()
    yield host
    host.sh(
        """
        systemctl disable --now k3s; umount /sys/bus /sys/module; rm -f /usr/local/sbin/modinfo /usr/local/sbin/journalctl /usr/local/sbin/modprobe
        rm -f /usr/local/bin/k3s /usr/local/bin/nvidia-smi /usr/local/lib/libnvidia-ml* /usr/local/lib/libcuda* /etc/systemd/system/k3s.service
        rm -f /etc/beta9-*-double; ldconfig; systemctl daemon-reload; timeout 40 systemctl restart beta9-agent""",
        check=False,
    )


GOOD = dict.fromkeys(CHECKS, "pass")
SET = "sed -i 's/^{0}=.*/{0}={1}/' /etc/beta9-gpu-double; "
# name, GPUs, what happens to the host, what the check is told, verdicts that are not "pass", root causes
STATES = [
    ("no GPU", 0, "true", {}, dict.fromkeys(CHECKS, "not_applicable"), []),
    ("no GPU, one expected", 0, "true", {"beta9_gpus": 1}, dict(dict.fromkeys(CHECKS, "blocked"), U01="fail", U05="pass"), ["U01"]),
    ("one GPU", 1, "true", {}, {}, []),
    ("eight GPUs", 8, "true", {}, {}, []),
    ("eight expected, seven on the bus", 7, "true", {"beta9_gpus": 8}, dict(dict.fromkeys(CHECKS, "blocked"), U01="fail", U05="pass"), ["U01"]),
    (
        "driver not loaded",
        2,
        "mv /opt/module-double/nvidia /opt/module-double/.away; " + SET.format("nvml", 9) + SET.format("smi", "fail"),
        {},
        {"U02": "fail:not_loaded", "U05": "fail", **dict.fromkeys(["U03", "U04", "U06", "U07", "U08"], "blocked")},
        ["U02"],
    ),
    (
        "nouveau",
        2,
        "mv /opt/module-double/nvidia /opt/module-double/nouveau; " + SET.format("nvml", 9) + SET.format("smi", "fail"),
        {},
        {"U02": "fail:nouveau", "U05": "fail", **dict.fromkeys(["U03", "U04", "U06", "U07", "U08"], "blocked")},
        ["U02"],
    ),
    (
        "loaded driver older than installed",
        2,
        "echo 545.1.1 > /opt/module-double/nvidia/version; " + SET.format("nvml", 18) + SET.format("smi", "mismatch"),
        {},
        {"U02": "fail:mismatch", "U05": "fail:mismatch", **dict.fromkeys(["U03", "U04", "U06", "U07", "U08"], "blocked")},
        ["U02"],
    ),
    (
        "libraries newer than module",
        2,
        "cd /usr/local/lib; mv libnvidia-ml.so.550.1.1 libnvidia-ml.so.560.1.1; ln -sf libnvidia-ml.so.560.1.1 libnvidia-ml.so.1; "
        + SET.format("nvml", 18)
        + SET.format("smi", "mismatch"),
        {},
        {"U02": "fail:library", "U05": "fail:mismatch", **dict.fromkeys(["U03", "U04", "U06", "U07", "U08"], "blocked")},
        ["U02"],
    ),
    (
        "libraries in containers only differ",
        2,
        SET.format("nvml", 18) + SET.format("smi", "mismatch"),
        {},
        {"U03": "fail:mismatch", "U05": "fail:mismatch", **dict.fromkeys(["U04", "U06", "U07"], "blocked")},
        ["U03"],
    ),
    ("fabric manager does not run", 8, SET.format("cuda", 802), {}, {"U04": "fail:fabric"}, ["U04"]),
    ("libcuda of another version", 2, SET.format("cuda", 803), {}, {"U04": "fail:mismatch"}, ["U04"]),
    ("cuInit hangs", 2, SET.format("cuda", 999000), {}, {"U04": "fail:hang"}, ["U04"]),
    ("CUDA sees one of two", 2, "echo cuda_gpus=1 >> /etc/beta9-gpu-double", {}, {"U04": "fail:count"}, ["U04"]),
    (
        "driver hangs",
        2,
        SET.format("smi", "hang") + SET.format("nvml", 999) + SET.format("cuda", 999000),
        {},
        {"U03": "fail:hang", "U05": "fail:hang", **dict.fromkeys(["U04", "U06", "U07"], "blocked")},
        ["U03"],
    ),
    (
        "a GPU fell off the bus",
        8,
        SET.format("smi", 7)
        + SET.format("gpus", 7)
        + "echo 'NVRM: Xid (PCI:0000:08:00): 79, pid=0, GPU has fallen off the bus.' > /etc/beta9-kernel-log-double",
        {},
        {"U03": "fail:count", "U05": "fail:count", "U08": "warn:lost", **dict.fromkeys(["U04", "U06", "U07"], "blocked")},
        ["U03", "U08"],
    ),
    ("a program's Xid", 1, "echo 'NVRM: Xid (PCI:0000:01:00): 31, pid=77, name=python' > /etc/beta9-kernel-log-double", {}, {"U08": "warn:program"}, ["U08"]),
    ("gateway knows none", 1, "GATEWAY hset {key} gpu_count 0", {}, {"U06": "fail"}, ["U06"]),
    ("device plugin offers none", 2, "echo 0 > /etc/beta9-allocatable-double", {}, {"U07": "fail"}, ["U07"]),
]


SHORT = ("no GPU", "eight GPUs", "driver hangs")


@pytest.mark.parametrize(
    ("gpus", "script", "variables", "expected", "root"),
    [pytest.param(*state[1:], id=state[0].replace(" ", "-"), marks=[] if state[0] in SHORT else [pytest.mark.long]) for state in STATES],
)
def test_verdicts(gpu_host, tmp_path, gpus, script, variables, expected, root):
    gpu_host.equip(gpus, tmp_path)
    if script.startswith("GATEWAY "):
        key = "provider:machine:generic:gpu:" + gpu_host.bed.machine_id(gpu_host.host)
        gpu_host.sh("systemctl stop beta9-agent")
        gpu_host.bed.sh(gpu_host.bed.gateway, "redis-cli " + script.partition(" ")[2].format(key=key))
    else:
        gpu_host.sh(script)
    entry = gpu_host.check(tmp_path, **variables)
    assert statuses(entry) == dict(GOOD, **expected), json.dumps(entry["verdicts"], indent=1)
    assert roots(entry) == root


@pytest.mark.long
def test_debians_own_packages_without_a_gpu(gpu_host, tmp_path):
    """Real libraries and the real nvidia-smi, whose driver is not loaded; the real unit of nvidia-persistenced under a real systemd."""
    gpu_host.equip(1, tmp_path)
    gpu_host.sh("""
        rm -f /usr/local/sbin/modinfo /usr/local/bin/nvidia-smi /usr/local/lib/libnvidia-ml* /usr/local/lib/libcuda*; ldconfig
        rm -rf /opt/module-double/nvidia
        printf 'Types: deb\\nURIs: http://deb.debian.org/debian\\nSuites: %s\\nComponents: contrib non-free non-free-firmware\\nSigned-By: %s\\n' \\
          "$(. /etc/os-release; echo $VERSION_CODENAME)" /usr/share/keyrings/debian-archive-keyring.gpg > /etc/apt/sources.list.d/nonfree.sources
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update; apt-get -qq install -y --no-install-recommends kmod nvidia-smi libcuda1 nvidia-persistenced >/dev/null 2>&1
        command -v nvidia-smi modinfo >/dev/null""")
    version = gpu_host.sh("dpkg-query --show --showformat='${Version}' libnvidia-ml1").partition("-")[0]
    try:
        entry = gpu_host.check(tmp_path, ("U01", "U02", "U03", "U04", "U05"))
        assert statuses(entry) == {"U01": "pass", "U02": "fail:no_module", "U03": "blocked", "U04": "blocked", "U05": "fail"}, entry
        verdicts = {verdict["id"]: verdict for verdict in entry["verdicts"]}
        assert roots(entry) == ["U02"] and version in verdicts["U02"]["found"] and "Driver Not Loaded" in verdicts["U05"]["found"], entry
        status, output = gpu_host.role(nvidia_source="distribution", nvidia_toolkit=False)
        plain = " ".join(output.split())
        assert status != 0 and "Unable to locate package linux-headers-" in plain, output  # this kernel is none of Debian's

        gpu_host.sh("mkdir -p /opt/module-double/nvidia; echo 400.1.1 > /opt/module-double/nvidia/version")
        assert statuses(gpu_host.check(tmp_path, ("U01", "U02")))["U02"] == "fail:library"
        status, output = gpu_host.role(nvidia_toolkit=False, nvidia_reboot="never")
        assert status == 0 and "reboot pending: the loaded driver is 400.1.1, the installed one %s" % version in output, output

        gpu_host.sh("echo %s > /opt/module-double/nvidia/version" % version)
        entry = gpu_host.check(tmp_path, ("U01", "U02", "U03", "U04"))
        assert statuses(entry) == {"U01": "pass", "U02": "pass", "U03": "fail:driver", "U04": "blocked"}, entry
        status, output = gpu_host.role(nvidia_toolkit=False)
        plain = " ".join(output.split())
        assert status != 0 and "was installed from packages and is left as it is" in plain and "the GPUs can't be used yet" in plain, output
        assert "cuInit answers error" in plain and "persistence mode: expected enabled" in plain and "couldn't communicate with the NVIDIA driver" in plain, (
            output
        )
        assert {"libnvidia-ml1", "nvidia-smi", "libcuda1", "nvidia-persistenced", "nvidia-alternative"} <= set(gpu_host.sh("apt-mark showhold").split())
        assert gpu_host.sh("systemctl is-enabled nvidia-persistenced") == "enabled"
    finally:
        gpu_host.sh(
            """
            apt-mark unhold $(apt-mark showhold) >/dev/null; apt-get -qq purge -y nvidia-smi libcuda1 libnvidia-ml1 nvidia-persistenced >/dev/null 2>&1
            apt-get -qq autoremove -y --purge >/dev/null 2>&1; rm -rf /etc/apt/sources.list.d/*nvidia* /etc/apt/sources.list.d/nonfree.sources
            rm -rf /etc/modprobe.d/beta9-* /var/lib/beta9""",
            check=False,
        )


@pytest.mark.long
def test_acceptance_keeps_a_gpu_that_computes_wrongly_out_of_what_is_offered(gpu_host, tmp_path):
    """Onboarding stops; with beta9_gpu_exclude_failed it goes on without the GPU; a second run changes nothing; accept_gpus.yml takes it back."""
    gpu_host.equip(2, tmp_path)
    wrong, good = "GPU-00000000-0000-0000-0000-000000000001", "GPU-00000000-0000-0000-0000-000000000000"
    gpu_host.sh("echo cuda_product_wrong.1=1 >> /etc/beta9-gpu-double")

    def play(playbook, **variables):
        settings = {"beta9_nvidia": False, "beta9_onboard_health": False, "beta9_gpu_acceptance": "quick"}
        return gpu_host.bed.play(playbook, "-l", gpu_host.host, "-e", json.dumps(dict(settings, **variables)))

    status, output = play("onboard_worker.yml")
    plain = " ".join(output.split())
    assert status != 0 and "expected every GPU to pass" in plain and "a matrix product is wrong" in plain and wrong in plain, output

    status, output = play("onboard_worker.yml", beta9_gpu_exclude_failed=True)
    assert status == 0 and "not offered: GPU 1" in " ".join(output.split()), output
    assert gpu_host.sh("grep ^BETA9_GPU_IDS= /etc/beta9/agent.env") == "BETA9_GPU_IDS=" + good
    assert json.loads(gpu_host.sh("cat /run/beta9-agent/state.json"))["gpu_count"] == 1
    status, output = play("onboard_worker.yml", beta9_gpu_exclude_failed=True)
    assert status == 0 and "changed=0" in output, output
    # the host has two, one of which is left out on purpose
    entry = gpu_host.check(tmp_path, ("U01", "U02", "U03", "U05", "U25"))
    assert statuses(entry) == dict.fromkeys(("U01", "U02", "U03", "U05", "U25"), "pass"), entry
    assert "1 failed and are not offered" in entry["verdicts"][-1]["found"]

    gpu_host.sh("sed -i /cuda_product_wrong/d /etc/beta9-gpu-double")
    status, output = play("accept_gpus.yml", beta9_gpu_exclude_failed=True)
    assert status == 0 and output.count("passed") >= 2, output
    assert gpu_host.sh("grep ^BETA9_GPU_IDS= /etc/beta9/agent.env || true") == ""
    gpu_host.sh("rm /var/lib/beta9/gpu_acceptance.json")
