# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent: its Python, its settings, its unit, and what it says."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import (
    Check,
    JOURNAL,
    KEEPALIVE_ANCESTORS,
    ONBOARD,
    SAFE,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import WORKER, first, inspect, repair

START_AGENT = repair(WORKER, "systemctl restart --no-block beta9-agent")
DOCTOR = "/opt/beta9-agent/current/bin/python -I -m beta9_agent doctor"
RECORDS = "/etc/systemd/system/beta9-* /etc/ansible/facts.d/beta9.fact"
CHECKS = (
    Check(
        "P03",
        "agent.python",
        "The agent's Python is new enough",
        WORKER,
        "The agent crashes on startup.",
        {
            "missing": ("the agent is not installed: its Python is not there", ONBOARD),
            "replaced": (
                "the Python that the agent was installed with was replaced, as by an upgrade of the distribution",
                ONBOARD,
            ),
            "home": (
                "the agent's Python is in a home directory, which the unit's sandbox hides",
                first("Point ansible_python_interpreter at a Python outside of /home and /root.", ONBOARD),
            ),
            "old": (
                "the agent's Python is older than 3.10",
                first("Install Python 3.10 or newer and point ansible_python_interpreter at it.", ONBOARD),
            ),
            "": ("the agent's Python does not start", ONBOARD),
        },
        heal="agent_install",
        heals={"old": "", "home": ""},
        heal_class=SAFE,
    ),
    Check(
        "P04",
        "agent.deps",
        "The agent's packages can be loaded",
        WORKER,
        "The agent crashes on startup with a traceback.",
        {"": ("a package of the agent is missing or broken", ONBOARD)},
        ("P03",),
        timeout_seconds=10.0,
        heal="agent_install",
        heal_class=SAFE,
    ),
    Check(
        "P07",
        "agent.dryrun",
        "The agent's settings are valid",
        WORKER,
        "The agent ends at once, and again after every restart.",
        {
            "identity": ("the agent's settings are another machine's or pool's than the host's record", ONBOARD),
            "": (
                "the agent refuses its settings",
                ONBOARD._replace(prose="Correct the setting that the agent names, if the inventory has it wrong."),
            ),
        },
        ("P04",),
        ("A03", "A01", "C01"),
        timeout_seconds=10.0,
        heal="agent_install",
        heal_class=SAFE,
    ),
    Check(
        "P08",
        "agent.programs",
        "What root starts for the agent is root's alone",
        WORKER,
        "Whoever may write the agent's programs or units is root on this host.",
        {
            "programs": ("others than root may have changed the agent's programs: they are not root's alone", ONBOARD),
            "units": (
                "a unit or record of the collection may be written by others than root",
                repair(WORKER, "chown -R root:root " + RECORDS + "; chmod -R go-w " + RECORDS),
            ),
            "": ("a program or unit of the agent is not as it was installed", ONBOARD),
        },
        heal="agent_install",
        heals={"units": "protect"},
        heal_class=SAFE,
    ),
    Check(
        "P01",
        "agent.process",
        "Exactly one agent runs for this machine",
        WORKER,
        "Without an agent no keepalive is sent; two of them disturb each other.",
        {
            "stopped": ("the agent's unit does not run", START_AGENT),
            "masked": ("the agent's unit is masked", ONBOARD),
            "not_installed": ("the agent is not installed", ONBOARD),
            "program": (
                "systemd can't start the agent's Python: it is missing, or the unit's sandbox does not reach it",
                ONBOARD,
            ),
            "account": ("systemd can't make the account of the agent's unit", JOURNAL),
            "credential": ("systemd can't read a credential of the agent", ONBOARD),
            "sandbox": ("systemd can't set up the sandbox of the agent's unit", JOURNAL),
            "folder": ("systemd can't enter the agent's folder", JOURNAL),
            "failing": ("the agent exits repeatedly", inspect(WORKER, DOCTOR)),
            "frozen": ("the agent's process is stopped or does not answer", START_AGENT),
            "duplicate": (
                "a second agent runs for the same machine",
                inspect(WORKER, "pgrep -af beta9_agent", "Stop the one that was started by hand."),
            ),
            "": ("the agent's unit does not run", START_AGENT),
        },
        ("C01",),
        ("P03", "P04", "P07", "A01", "C04", "C05"),
        heal="agent_install",
        heals=dict(
            dict.fromkeys(("stopped", "frozen", ""), "agent_start"),
            **dict.fromkeys(("account", "sandbox", "folder", "failing", "duplicate"), ""),
        ),
        heal_class=SAFE,
    ),
    Check(
        "P09",
        "agent.boot",
        "Agent and tunnel start when the host boots",
        WORKER,
        "After the host's next reboot the machine is gone.",
        {
            "agent": ("the agent's unit is not enabled", repair(WORKER, "systemctl enable beta9-agent")),
            "tunnel": ("the tunnel's unit is not enabled", repair(WORKER, "systemctl enable beta9-tunnel")),
            "": ("neither unit is enabled", repair(WORKER, "systemctl enable beta9-agent beta9-tunnel")),
        },
        ("P01",),
        severity="warn",
    ),
    Check(
        "P02",
        "agent.restarts",
        "The agent does not crash",
        WORKER,
        "Between a crash and the next start no keepalive is sent.",
        {
            "traceback": ("the agent ended with a traceback", JOURNAL),
            "no_journal": (
                "the host's journal is not written: a crash would leave no trace",
                repair(
                    WORKER,
                    "systemctl unmask --runtime systemd-journald.socket systemd-journald; systemctl start "
                    "systemd-journald.socket systemd-journald",
                ),
            ),
            "": ("the agent was restarted more than three times within the hour, and lately", JOURNAL),
        },
        ("P01",),
        ("P04", "P07", "C05"),
        severity="warn",
    ),
    Check(
        "P05",
        "agent.interval",
        "Keepalives are sent often enough",
        WORKER,
        "A machine without a keepalive for 300 s is forgotten.",
        {
            "": (
                "the keepalive interval is 240 s or more",
                ONBOARD._replace(prose="Remove agent_keepalive_interval from the inventory, if it is there."),
            ),
            "late": ("the last accepted keepalive is older than two intervals", JOURNAL),
        },
        ("P01",),
        KEEPALIVE_ANCESTORS,
        heal="agent_install",
        heals={"late": "agent_start"},
        heal_class=SAFE,
    ),
    Check(
        "P06",
        "agent.log",
        "No active errors in the agent log (last hour)",
        WORKER,
        "The log names what the agent is waiting for.",
        dict(
            {code: (entry.cause, JOURNAL) for code, entry in protocol.CODES.items()},
            **{"": ("the agent reports a problem", JOURNAL)},
        ),
        ("P01",),
        KEEPALIVE_ANCESTORS,
    ),
)
