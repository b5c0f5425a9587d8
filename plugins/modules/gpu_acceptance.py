#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_acceptance
short_description: Try whether the GPUs of a host do what may be expected of their models
version_added: "0.2.0"
description:
  - Internal to the playbooks of this collection.
  - Has each GPU allocate and fill its memory, copy to and from the host and within itself, and multiply matrices whose
    product is known, first alone, then all at once; then copies from each GPU to each other one. Compares the figures
    with what may be expected of the model and of the host's PCIe link.
  - Needs the driver alone, C(libcuda) and what it compiles itself, and no CUDA toolkit. Each GPU is tried by a process
    of its own, which is ended when it hangs.
  - The result is kept on the host. It holds for as long as GPUs and driver stay the same, so that a second run changes
    nothing. One in which GPUs failed holds with O(keep_failed=true) only.
  - A GPU on which a program computes is left alone.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Tries nothing, and says whether it would.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: What was tried is not tried again, unless O(again=true). The same outcomes are no change.
options:
  mode:
    description: V(quick) is made for a minute on eight GPUs. V(full) takes some, and runs C(dcgmi diag) where it is
      installed.
    type: str
    choices: [quick, full]
    default: quick
  gpu_ids:
    description: Only these GPUs, indexes or UUIDs with commas between them. All by default.
    type: str
    default: ""
  expectations:
    description:
      - Least figures by the name that the driver gives a model. They replace those that this collection has.
      - Names are C(device_to_device), which is a copy within one GPU and counts each octet read and written,
        C(host_to_device) and C(device_to_host), all in GB/s, and C(gflops) of the matrix product.
    type: dict
    default: {}
  keep_failed:
    description: Whether a result in which GPUs failed holds as well. Otherwise they are tried again.
    type: bool
    default: false
  again:
    description: Try also what was tried before.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Verify that the GPUs do what they should
  beta9.workers.gpu_acceptance:
    mode: quick
    expectations:
      NVIDIA L4: {host_to_device: 11, device_to_host: 11}
"""

RETURN = r"""
gpus:
  description: >-
    Each GPU with its outcome, V(passed), V(failed) or V(in_use), what speaks against it, what was measured and what
    was expected. With other GPUs, C(between_gpus) is the median in GB/s of the copies from and to them, and
    C(direct_copies) how many of these did not go through the host.
  returned: when something was tried, or was before
  type: list
  elements: dict
  sample:
    - device: 0
      name: NVIDIA L4
      uuid: GPU-5ac1e0b2-8f3b-4f0e-9a51-0f6d2c1f7a10
      outcome: failed
      reasons: ["host to device: expected at least 18.9 GB/s, found 6.1"]
offered:
  description: UUIDs of the GPUs that may be offered, where some failed. Empty where all may.
  returned: always
  type: list
  elements: str
problems:
  description: What speaks against GPUs, one text each.
  returned: always
  type: list
  elements: str
remembered:
  description: Whether this is the result of an earlier run.
  returned: always
  type: bool
dcgm:
  description: What C(dcgmi diag) said, V(passed), V(failed) or V(not run).
  returned: when something was tried, or was before
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_accept, gpu_host, gpu_record


def problems(gpus: list[dict[str, Any]]) -> list[str]:
    """Return what speaks against GPUs, one text each."""
    failed = [gpu for gpu in gpus if gpu["outcome"] == gpu_record.FAILED]
    return [f"GPU {gpu['device']} ({gpu['name']}, {gpu['uuid']}): {'; '.join(gpu['reasons'])}" for gpu in failed]


def verdict(record: dict[str, Any]) -> tuple[str | None, str | None, dict[str, Any]]:
    """Return what of a record others act upon: figures differ each time."""
    outcomes = {gpu["uuid"]: gpu["outcome"] for gpu in record.get("gpus", [])}
    return record.get("mode"), record.get("driver"), outcomes


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "mode": {"type": "str", "choices": ["quick", "full"], "default": "quick"},
            "gpu_ids": {"type": "str", "default": ""},
            "expectations": {"type": "dict", "default": {}},
            "keep_failed": {"type": "bool", "default": False},
            "again": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params, driver, before = module.params, gpu_host.loaded_version(), gpu_record.kept()
    try:
        gpus = gpu_accept.listed(gpu_accept.run, params["gpu_ids"])
        record = {}
        if not params["again"]:
            record = gpu_record.remembered(gpu_record.RECORD, params["mode"], driver, gpus, params["keep_failed"])
        known = bool(record)
        if not known and module.check_mode:
            module.exit_json(changed=True, offered=[], problems=[], remembered=False)
        wanted, least = params["gpu_ids"], params["expectations"]
        record = record or gpu_accept.accept(params["mode"], wanted, least, driver, gpu_accept.run)
    except gpu_accept.CannotTry as error:
        if module.check_mode:  # the driver may be installed by the run that is only looked at
            module.exit_json(changed=True, offered=[], problems=[], remembered=False)
        module.fail_json(
            msg=f"GPUs: expected to try them with CUDA, found: {error}. See checks U02 to U04 of health_check.yml."
        )
    if not known:
        gpu_record.write(record)
    found = {
        "gpus": record["gpus"],
        "offered": gpu_record.offered(record["gpus"]),
        "problems": problems(record["gpus"]),
        "dcgm": record["dcgm"],
    }
    module.exit_json(changed=verdict(record) != verdict(before), remembered=known, **found)


if __name__ == "__main__":
    main()
