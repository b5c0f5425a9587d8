# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings and files that everything else rests on."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import (
    CONTROL,
    Check,
    ONBOARD,
    OPT_IN,
    PERSON,
    SAFE,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import WORKER, inspect, repair

CHECKS = (
    Check(
        "C01",
        "config.inputs",
        "Identity and settings of the worker are plausible",
        CONTROL,
        "With a wrong id, pool, address or mode nothing that follows can work.",
        {
            "": (
                "a setting is missing or mistyped",
                ONBOARD._replace(
                    prose="Correct beta9_pool, beta9_gateway_url or beta9_connection, if the inventory has it wrong."
                ),
            ),
            "no_machine": ("this host was never onboarded: it holds no machine id", ONBOARD),
        },
        heals={"no_machine": "onboard"},
        heal_class=OPT_IN,
    ),
    Check(
        "C04",
        "config.files",
        "The collection's files are root's, and its secrets root's alone",
        WORKER,
        "Whoever may read the machine's token, or write the tunnel's settings, is the machine.",
        {
            "mode": (
                "a file of the collection may be read or written by others than root",
                repair(WORKER, "chmod -R go-w /etc/beta9; chmod -R go-rwx /etc/beta9/credentials"),
            ),
            "owner": (
                "a file of the collection belongs to another account than root",
                repair(WORKER, "chown -R root:root /etc/beta9"),
            ),
            "empty": ("a key or token on the host is empty", ONBOARD),
            "": ("a file of the collection is not as it was written", ONBOARD),
        },
        heal="protect",
        heals={"empty": "onboard", "": "onboard"},
        heal_class=SAFE,
    ),
    Check(
        "C05",
        "config.disk",
        "What has to be written on the worker can be",
        WORKER,
        "Logs, settings, packages, the agent's state and images of pods can't be written.",
        {
            "full": (
                "a file system of the worker is full",
                inspect(WORKER, "df -h", "Free some space on it, or enlarge it."),
            ),
            "inodes": (
                "a file system of the worker has no inode left",
                inspect(WORKER, "df -i", "Delete some of the many small files on it."),
            ),
            "read_only": (
                (
                    "a file system that has to be written is read-only: the kernel made it so after an error of the "
                    "disk, or it was mounted so"
                ),
                inspect(
                    WORKER,
                    "dmesg | grep -i -e remount -e 'i/o error' || true",
                    "Repair the disk and reboot; or remount it: mount -o remount,rw PATH.",
                ),
            ),
            "": ("a file system of the worker can't be written", inspect(WORKER, "df -h")),
        },
        heal_class=PERSON,
    ),
)
