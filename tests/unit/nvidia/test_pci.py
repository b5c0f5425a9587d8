"""NVIDIA's devices in sysfs, as the kernel lays it out."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_host


def device(root, address, vendor, kind, driver=None):
    path = root / "devices" / address
    path.mkdir(parents=True)
    (path / "vendor").write_text(vendor + "\n")
    (path / "class").write_text(kind + "\n")
    (path / "device").write_text("0x2237\n")
    if driver:
        (root / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (path / "driver").symlink_to(root / "drivers" / driver)


def test_a_gpu_that_is_given_to_a_virtual_machine_is_not_counted(tmp_path):
    device(tmp_path, "0000:01:00.0", "0x10de", "0x030200", "nvidia")
    device(tmp_path, "0000:02:00.0", "0x10de", "0x030200", "vfio-pci")
    device(tmp_path, "0000:03:00.0", "0x10de", "0x030000")
    device(tmp_path, "0000:03:00.1", "0x10de", "0x040300", "snd_hda_intel")
    device(tmp_path, "0000:04:00.0", "0x10de", "0x068000")
    device(tmp_path, "0000:05:00.0", "0x1002", "0x030000", "amdgpu")
    root = str(tmp_path / "devices")
    assert linux.nvidia_pci_count(root) == 2
    assert gpu_host.pci_devices(root) == ([{"address": "0000:01:00.0", "device": "0x2237"}, {"address": "0000:03:00.0", "device": "0x2237"}], 1)
