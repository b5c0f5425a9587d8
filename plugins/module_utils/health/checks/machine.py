# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway tells of the machine to the machine itself."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import (
    CONTROL,
    Check,
    JOURNAL,
    ONBOARD,
    OPT_IN,
    REGISTER_AGAIN,
    SAFE,
    STATE_ANCESTORS,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import (
    CONTROLLER,
    WORKER,
    first,
    inspect,
    repair,
)

ROTATE = repair(
    CONTROLLER, "ansible-playbook rotate_token.yml -l {host}", "The host gets another machine, with a token of its own."
)
CHECKS = (
    Check(
        "M01",
        "machine.listed",
        "The gateway lists the machine as ready",
        WORKER,
        "The gateway schedules nothing on a machine that is not ready.",
        {"": ("the gateway does not have the machine as ready", REGISTER_AGAIN)},
        ("A01",),
        STATE_ANCESTORS + ("A04", "A05", "P06", "G06", "M02", "M04"),
        heal="agent_restart",
        heal_class=OPT_IN,
    ),
    Check(
        "C02",
        "cli.machines",
        "The machine list shows the machine as ready",
        CONTROL,
        "beta9 machine list shows what the scheduler sees.",
        {
            "absent": (
                (
                    "the machine is not in the list: its state expired, or it was deleted (while its agent runs it "
                    "comes back by itself)"
                ),
                REGISTER_AGAIN,
            ),
            "pending": ("the machine was created, but never registered", JOURNAL),
            "registered": ("the machine is registered, but no keepalive was accepted yet", JOURNAL),
            "other_pool": (
                "the machine is listed in another pool",
                ONBOARD._replace(prose="Correct beta9_pool, if the inventory has it wrong."),
            ),
            "": ("the machine is not ready", JOURNAL),
        },
        ("C01",),
        STATE_ANCESTORS + ("A04", "A05", "P06", "T01", "G06", "M01", "M02", "M04", "G09"),
        heal="agent_restart",
        heal_class=OPT_IN,
    ),
    Check(
        "M06",
        "machine.flapping",
        "The machine does not re-register repeatedly",
        WORKER,
        "Each registration takes the machine out of the pool until its next keepalive.",
        {
            "": (
                "the agent had to register more than twice within 30 minutes",
                inspect(
                    WORKER,
                    "journalctl --no-pager -u beta9-agent --since -30min",
                    "Check the interval, and the tunnel for drops.",
                ),
            )
        },
        ("P01",),
        STATE_ANCESTORS + ("T05", "M03"),
        severity="warn",
    ),
    Check(
        "M07",
        "machine.identity",
        "The gateway's record of the machine matches this host",
        WORKER,
        "The gateway dials, and sends pods to, the host that registered last under this id, whichever it is.",
        {
            "hostname": (
                "another name or address is registered under this machine's id than this host's",
                REGISTER_AGAIN,
            ),
            "private_ip": (
                "another private address is registered under this machine's id than this host's",
                REGISTER_AGAIN,
            ),
            "keepalive": (
                "another host sends keepalives under this machine's id",
                first(
                    "Find the host: one that was made from an image of this one has the same "
                    "/etc/ansible/facts.d/beta9.fact; otherwise a worker was taken over. Then give this host another "
                    "machine:",
                    ROTATE,
                ),
            ),
            "": ("what the gateway keeps of this machine is not this host's", REGISTER_AGAIN),
        },
        ("M01",),
        ("P07", "P01", "A01"),
        heal="agent_restart",
        heals={"keepalive": ""},
        heal_class=SAFE,
        timeout_seconds=8.0,
    ),
)
