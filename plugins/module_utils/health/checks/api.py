# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway's API answers to the machine."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import (
    Check,
    JOURNAL,
    ONBOARD,
    OPT_IN,
    REGISTER_AGAIN,
    SAFE,
    cause_of,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import WORKER, first, person

CHECKS = (
    Check(
        "A01",
        "api.token",
        "The gateway accepts the machine's token",
        WORKER,
        "Registration and keepalive are refused.",
        {
            "missing": ("the machine's token is not on the host", ONBOARD),
            "token_unknown": (cause_of("token_unknown"), ONBOARD),
            "token_wrong_type": (cause_of("token_wrong_type"), ONBOARD),
            "": ("the gateway does not accept the machine's token", ONBOARD),
        },
        ("T04",),
        heal="onboard",
        heal_class=OPT_IN,
    ),
    Check(
        "A02",
        "api.keepalive_route",
        "The gateway has the keepalive endpoint",
        WORKER,
        "The machine can register, but never becomes ready.",
        {
            "": (
                "this gateway build has no keepalive endpoint",
                person("Upgrade the gateway to a build that has POST /api/v1/machine/keepalive."),
            )
        },
        ("A01",),
    ),
    Check(
        "A03",
        "api.payload",
        "What the agent would register is well-formed",
        WORKER,
        "The gateway answers 400 Invalid payload, or 500 for a single field.",
        {
            "": (
                "a field of the registration is missing or has the wrong form",
                ONBOARD._replace(prose="Correct the setting that is named, if the inventory has it wrong."),
            )
        },
        ("P04",),
        heal="agent_install",
        heal_class=SAFE,
    ),
    Check(
        "A04",
        "api.register",
        "The gateway accepts a registration",
        WORKER,
        "The machine does not get a state, and keepalives are refused.",
        {
            "pool_unknown": (
                cause_of("pool_unknown"),
                first("Correct beta9_pool to one of the gateway's pools (beta9 pool list).", ONBOARD),
            ),
            "": ("the gateway refuses the registration", JOURNAL),
        },
        ("A01", "A03"),
        ("G06",),
        active=True,
        heal="agent_restart",
        heal_class=OPT_IN,
    ),
    Check(
        "A05",
        "api.keepalive",
        "The gateway accepts a keepalive",
        WORKER,
        "The machine's state expires after five minutes.",
        {
            "machine_not_found": (
                cause_of("machine_not_found"),
                REGISTER_AGAIN,
            ),
            "": ("the gateway refuses the keepalive", JOURNAL),
        },
        ("A02",),
        ("A04",),
        active=True,
        heal="agent_restart",
        heal_class=OPT_IN,
    ),
)
