"""make faults: inject real faults on real hosts, run health_check.yml through ansible-runner, and compare the root cause it names.

Each fault is tried in three settings:
    quiet          nothing happened before. Then the remedy is pasted, as the report gives it.
    after_trouble  after other trouble, which is over: a wrong host key, a killed agent, a gateway that was away. Then heal_worker.yml runs.
    fresh          looked at within five seconds. An honest "unknown" will do there, "healthy" will not.
Asked for, on hosts whose time is short, because it takes as long as all others together:
    late           looked at when every consequence is there: eight keepalives are due, and the gateway has forgotten the machine.

Writes build/faults.json: {"faults": [{fault, setting, expected_root, reported_roots, wrong_roots, right, called_healthy, seconds, healed,
remedy: {command, where, ran, mended}}], "commands": [...], "healthy": [...], "totals": {...}}. healed and mended are null where it was not
tried, or where the report asks for a person.

    run.py [--only WORDS] [--settings quiet,fresh] [--every N] [--healthy N] [--commands] [--no-heal] [--keep]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "collections"))

import ansible_runner
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog as checks
from ansible_collections.beta9.workers.plugins.module_utils.health.checks import gpu, terms
from ansible_collections.beta9.workers.plugins.plugin_utils import health_remedies

from tests.faults import trouble
from tests.faults.catalog import FAULTS, PAIRS

SETTINGS = ("quiet", "after_trouble", "fresh")
LATE = "late"
LATE_INTERVAL, LATE_TTL, LATE_SECONDS = 5, 25, 45
# The least that a run must reach, in shares of the rows
BARS = {"right": 0.98, "remedies_ran": 1.0, "mended": 0.95}

NAME = os.environ.get("B9_TESTBED", "b9f")
STATE = ROOT / "build" / ("testbed-" + NAME)
WORKER, OTHER, GATEWAY = NAME + "-worker1", NAME + "-worker2", NAME + "-gateway"
REPORT = ROOT / "build" / "faults"
# What remediates shows nothing where it went well, also where a person has to do something before
SILENT = {remedy.command for check in checks.CHECKS for _cause, remedy in check.causes.values() if remedy.remediates}
K3S_TOKEN = "canary-k3s-token-0123456789"


def sh(host, script, check=True):
    """Run a script in a host; return its output."""
    done = subprocess.run(["podman", "exec", "-i", host, "sh"], input=script, capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit("%s: %s\n%s%s" % (host, script, done.stdout, done.stderr))
    return done.stdout.strip()


def put(host, source, target, mode="755"):
    """Copy a file into a host."""
    subprocess.run(["podman", "cp", str(source), "%s:%s" % (host, target)], check=True, capture_output=True)
    sh(host, "chmod %s %s" % (mode, target))


def wrap(host, script, command):
    """Make a Python file a command."""
    sh(host, "printf '#!/bin/sh\\nexec /usr/bin/python3 %s \"$@\"\\n' > %s; chmod 755 %s" % (script, command, command))


def play(playbook, limit=WORKER, **variables):
    """Run a playbook through ansible-runner; return (exit status, output)."""
    private = REPORT / "runner"
    shutil.rmtree(private, ignore_errors=True)
    private.mkdir(parents=True)
    environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"}
    done = ansible_runner.run(
        private_data_dir=str(private),
        project_dir=str(ROOT),
        playbook=playbook,
        inventory=str(STATE / "inventory.yml"),
        limit=limit,
        extravars=variables,
        envvars=environment,
        quiet=True,
    )
    return done.rc, done.stdout.read()


def equip():
    """Give the hosts what can't be had here: a GPU, k3s and kubectl, as doubles."""
    folder = REPORT / "doubles"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-double.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, ROOT / "tests/doubles/gpu/nvidia_double.c"], check=True)
    for worker in (WORKER, OTHER):
        pem = folder / (worker + ".pem")
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        make += ["-keyout", folder / "key", "-out", folder / "crt", "-subj", "/CN=" + worker, "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(make, check=True, capture_output=True)
        pem.write_text((folder / "key").read_text() + (folder / "crt").read_text())
        put(worker, ROOT / "tests/doubles/k3s/k3s_double.py", "/opt/k3s_double.py")
        wrap(worker, "/opt/k3s_double.py", "/usr/local/bin/k3s")
        put(worker, pem, "/etc/beta9-k3s-double.pem", "600")
        sh(worker, "mkdir -p /var/lib/rancher/k3s/server/tls")
        put(worker, folder / "crt", "/var/lib/rancher/k3s/server/tls/server-ca.crt", "644")
        put(worker, ROOT / "tests/doubles/gpu/nvidia-smi", "/usr/local/bin/nvidia-smi")
        put(worker, library, "/usr/local/lib/libnvidia-ml.so.1")
        put(worker, library, "/usr/local/lib/libcuda.so.1")
        allowed = ["create jobs", "list jobs", "delete jobs", "list pods"]
        k3s = {"readyz": [], "node_ready": True, "allocatable": 2, "token": K3S_TOKEN, "allowed": allowed, "kernel_missing": []}
        (folder / "k3s.json").write_text(json.dumps(k3s))
        (folder / "k3s_token").write_text(K3S_TOKEN)
        sh(worker, "mkdir -p /etc/beta9/credentials; chmod 700 /etc/beta9/credentials")
        put(worker, folder / "k3s.json", "/etc/beta9-k3s-double.json", "644")
        put(worker, folder / "k3s_token", "/etc/beta9/credentials/k3s_token", "600")
        sh(worker, (ROOT / "tests/faults/equip_worker.sh").read_text())
    clock = folder / "libclock-double.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", clock, ROOT / "tests/doubles/clock/clock_double.c"], check=True)
    for host in (WORKER, GATEWAY):
        put(host, clock, "/usr/local/lib/libclock-double.so")
    put(GATEWAY, ROOT / "tests/doubles/ssh/ssh_double.py", "/opt/ssh_double.py")
    put(GATEWAY, ROOT / "tests/doubles/kubectl/kubectl_double.py", "/opt/kubectl_double.py")
    wrap(GATEWAY, "/opt/kubectl_double.py", "/usr/local/bin/kubectl")
    pod = {
        "metadata": {"name": "gateway-0"},
        "status": {"phase": "Running", "containerStatuses": [{"ready": True, "restartCount": 0, "state": {"running": {}}}]},
    }
    service = {"metadata": {"name": "gateway"}, "spec": {"ports": [{"port": 1993, "nodePort": 31993}, {"port": 1994, "nodePort": 31994}]}}
    kube = {
        "denied": [],
        "pods": {"app=gateway": [pod]},
        "services": {"gateway": service, "beta9-gateway-nodeport": service},
        "endpointslices": {"gateway": [{"metadata": {"name": "gateway-x7"}, "endpoints": [{"addresses": ["10.42.0.5"], "conditions": {"ready": True}}]}]},
        "health": {"status": "ok"},
        "log": "INF pool is healthy, resuming pool sizing pool_name=gpu",
        "configmaps": {
            "gateway-config": {
                "data": {"config.yaml": "worker:\n  pools:\n    cpu:\n      mode: external\n    gpu:\n      mode: external\n      provider: generic\n"}
            }
        },
    }
    (folder / "kube.json").write_text(json.dumps(kube))
    put(GATEWAY, folder / "kube.json", "/etc/beta9-kubectl-double.json", "644")
    tailscale = (
        "#!/bin/sh\n# TEST DOUBLE of tailscale: its status with every registered machine as a peer, and its ping\n"
        'if [ "$1" = status ]; then\n'
        "    for key in $(redis-cli smembers provider:machine:generic:gpu:machine_index); do redis-cli hget $key hostname; done |\n"
        '        sed \'s/.*/"&": {"TailscaleIPs": ["&"]}/\' | paste -sd, | sed \'s/.*/{"BackendState": "Running", "Peer": {&}}/\'\n'
        "    exit\nfi\n"
        '[ "$(cat /etc/beta9-tailscale-double)" = Running ] || { echo "no reply"; exit 1; }\n'
        'echo "pong from worker via 10.0.0.1:41641 in 1ms"\n'
    )
    (folder / "tailscale").write_text(tailscale)
    put(GATEWAY, folder / "tailscale", "/usr/local/bin/tailscale")
    sh(GATEWAY, "echo Running > /etc/beta9-tailscale-double; redis-cli hset workerpool:gpu:state status HEALTHY pending_workers 0")


class Bed:
    """The hosts, and the values that faults name."""

    # in the inventory, so that a pasted command finds them
    settings = {"beta9_gpus": 2, "health_check_k3s": True, "health_check_kube": True, "beta9_nvidia": False, "beta9_onboard_health": False}
    variables = {}

    def start(self, late=False):
        environment = dict(os.environ, B9_TESTBED=NAME)
        if late:
            environment["B9_STATE_TTL_SECONDS"] = str(LATE_TTL)
            self.settings = dict(self.settings, agent_keepalive_interval=LATE_INTERVAL)
        testbed = [sys.executable, str(ROOT / "tests/testbed/testbed.py")]
        subprocess.run(testbed + ["deps"], check=True, env=environment)
        subprocess.run(testbed + ["up", "--workers", "2"], check=True, env=environment)
        equip()
        inventory = STATE / "inventory.yml"
        hosts = json.loads(inventory.read_text())
        hosts["all"]["vars"].update(self.settings)
        inventory.write_text(json.dumps(hosts, indent=1) + "\n")
        for playbook, limit in (("prepare_gateway.yml", GATEWAY), ("onboard_worker.yml", "all")):
            status, output = play(playbook, limit=limit)
            if status:
                sys.exit(output)
        time.sleep(1)
        self.learn()

    def learn(self):
        """Read what the hosts hold now."""
        identity = json.loads(sh(WORKER, "cat /etc/ansible/facts.d/beta9.fact"))
        token = sh(WORKER, "cat /etc/beta9/credentials/machine_token")
        lines = sh(GATEWAY, "cat /etc/ssh/beta9-tunnel/authorized_keys").splitlines()
        addresses = {line.rpartition(":")[2]: line.split('permitlisten="')[1].split(":")[0] for line in lines}
        hosts = json.loads((STATE / "inventory.yml").read_text())["all"]["children"]["beta9_gateway"]["hosts"]
        self.values = {
            "worker": WORKER,
            "key": "provider:machine:generic:gpu:" + identity["machine_id"],
            "machine": identity["machine_id"],
            "token_key": "double:token:" + hashlib.sha256(token.encode()).hexdigest(),
            "address": addresses[WORKER],
            "other_address": addresses[OTHER],
            "gateway_address": hosts[GATEWAY]["ansible_host"],
        }
        self.secrets = [token, K3S_TOKEN, (STATE / "admin_token").read_text()]

    def fill(self, value):
        if isinstance(value, dict):
            return {key: self.fill(entry) for key, entry in value.items()}
        if isinstance(value, str):
            for name, text in self.values.items():
                value = value.replace("{%s}" % name, text)
        return value

    def run(self, scripts):
        for host, script in scripts.items():
            sh({"worker": WORKER, "gateway": GATEWAY}[host], self.fill(script), check=False)

    def check(self, variables=None, limit=WORKER):
        """Return (roots, seconds, whether a secret was shown)."""
        start = time.monotonic()
        shutil.rmtree(REPORT / "health", ignore_errors=True)
        _status, output = play(
            "health_check.yml", limit=limit, **dict(self.variables, health_check_directory=str(REPORT / "health"), **self.fill(variables or {}))
        )
        seconds = time.monotonic() - start
        path = REPORT / "health" / "health.json"
        self.all_verdicts, self.outcomes = [], {}
        if not path.exists():
            return ["no report: " + output[-400:]], {}, seconds, False
        text = "".join(file.read_text() for file in (REPORT / "health").iterdir()) + output
        document = json.loads(path.read_text())
        self.outcomes = {host["host"]: host["outcome"] for host in document["hosts"]}
        self.all_verdicts = verdicts = [verdict for host in document["hosts"] for verdict in host["verdicts"]]
        roots = sorted({verdict["id"] for verdict in verdicts if verdict["root"]} | {verdict["id"] for verdict in verdicts if verdict["status"] == "crash"})
        return roots, {verdict["id"]: verdict for verdict in verdicts}, seconds, any(secret in text for secret in self.secrets)


def paste(bed, remedy):
    """Run the command of a remedy where it says, as root there or as the operator here. Return (exit status, output)."""
    if remedy["where"] == "controller":
        words, folder = ["bash", "-c", remedy["command"]], "/"  # from anywhere, with nothing but the program's path
    else:
        words, folder = ["podman", "exec", WORKER if remedy["where"] == "worker" else GATEWAY, "bash", "-c", remedy["command"]], None
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment["PATH"] = "%s:%s" % (pathlib.Path(sys.executable).parent, environment["PATH"])
    try:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return None, "it did not end within 300 s"
    if remedy["command"] == gpu.REBOOT.command:
        boot()
    return done.returncode, done.stdout + done.stderr


def boot():
    """Wait for the worker to end, and start it as a reboot would."""
    subprocess.run(["timeout", "60", "podman", "wait", WORKER], check=False, capture_output=True)
    subprocess.run(["podman", "start", WORKER], check=True, capture_output=True)
    sh(WORKER, "for n in $(seq 300); do systemctl is-active -q multi-user.target 2>/dev/null && break; sleep 0.1; done")
    sh(WORKER, (ROOT / "tests/faults/equip_worker.sh").read_text())


def apply_remedy(bed, verdict, variables, refused=""):
    """Paste the remedy of the root cause. Return the row's entry, and what is wrong with it in words. refused: as in Fault."""
    remedy = verdict.get("remedy") or {}
    if not remedy.get("command"):
        return {"command": "", "where": "", "ran": None, "mended": None}, ""
    status, output = paste(bed, remedy)
    # a program that is not there, a usage error and a hang are the command's fault; else it may well say that something is broken
    ran = status is not None and status not in (126, 127) and (status == 0 or not remedy["remediates"])
    ran = refused in output if refused and status else ran
    ran = ran and (remedy["command"] in SILENT or remedy["remediates"] or bool(output.strip()))
    mended = None
    # the bed's k3s is a stand-in that no playbook has installed, so none repairs it
    stand_in = verdict["id"].startswith("K") and remedy["where"] == "controller"
    if remedy["remediates"] and ran and not stand_in and not (refused and status):
        again, _verdicts, _seconds, _leaked = bed.check(dict(variables, health_check_wait_seconds=30))
        mended = verdict["id"] not in again
    problem = "" if ran and mended is not False else "%s: %s" % (status, output[-800:])
    return {"command": remedy["command"], "where": remedy["where"], "ran": ran, "mended": mended}, problem


def heal(bed, variables):
    """Run heal_worker.yml twice. Return whether the host is healthy and the second run changed nothing, and what it said."""
    status, output = play("heal_worker.yml", **bed.variables)
    again, _verdicts, _seconds, _leaked = bed.check(variables)
    _status, second = play("heal_worker.yml", **dict(bed.variables, heal_wait_seconds=5))
    return status == 0 and not again and "changed=0" in second, "%s\n%s" % (again, output[-1500:])


def one(bed, name, expected, faults, setting, with_heal):
    """Inject, look, try the remedy or heal, restore; return the row."""
    if setting == "after_trouble":
        bed.run(trouble.BEFORE)
    for fault in faults:
        bed.run(fault.inject)
    if setting != "fresh":
        time.sleep(max([fault.wait_seconds for fault in faults] + [LATE_SECONDS] * (setting == LATE)))
    variables = {key: value for fault in faults for key, value in fault.variables.items()}
    roots, verdicts, seconds, leaked = bed.check(variables)
    outcome = bed.outcomes.get(WORKER, "")
    row = {
        "fault": name,
        "setting": setting,
        "guide": faults[0].guide,
        "expected_root": expected if len(faults) > 1 else expected[0],
        "reported_roots": roots,
        "wrong_roots": sorted(set(roots) - set(expected)),
        "outcome": outcome,
        "called_healthy": outcome == "healthy" and not set(expected) & set(roots),
        "seconds": round(seconds, 2),
        "healed": None,
        "remedy": {"command": "", "where": "", "ran": None, "mended": None},
        "secret_shown": leaked,
    }
    unsure = setting == "fresh" and not roots and outcome == "unknown"
    row["right"] = (roots == sorted(expected) or unsure) and not leaked
    for fault in faults:
        if fault.code and not unsure and verdicts.get(fault.root, {}).get("code") != fault.code:
            row["right"] = False
            row["code"] = "expected %s, found %s" % (fault.code, verdicts.get(fault.root, {}).get("code"))
    if setting == "quiet" and len(faults) == 1 and expected[0] in roots:
        row["remedy"], problem = apply_remedy(bed, verdicts[expected[0]], variables, faults[0].refused)
        if problem:
            row["remedy_output"] = problem
            print("      " + problem[-1000:].replace("\n", "\n      "), flush=True)
    # what must heal by itself, and whatever the report says does
    promised = all(fault.heals for fault in faults) or all(
        verdicts.get(name, {}).get("heal") and verdicts[name]["heal_class"] == terms.SAFE for name in expected if name in roots
    )
    if setting == "after_trouble" and with_heal and promised and set(expected) & set(roots):
        row["healed"], told = heal(bed, variables)
        if not row["healed"]:
            row["heal_output"] = told
        if not row["healed"] and faults[0].refused and "needs a person" in told:
            row["healed"] = None  # as the row "quiet" has it
    for fault in faults:
        bed.run(fault.restore)
    settle(bed)
    return row


def settle(bed):
    """Wait until the machine is ready again: the unit is started when a keepalive was accepted. Forget the journal of the fault."""
    forget = "journalctl -q --rotate --vacuum-time=1s 2>/dev/null"
    started = sh(WORKER, "timeout 30 systemctl restart beta9-agent && echo started; " + forget, check=False)
    sh(OTHER, forget, check=False)
    old = bed.values["key"]
    try:
        bed.learn()  # a remedy may have made a new machine, or a new token
        sound = started and bed.values["machine"] in sh(WORKER, "grep MACHINE_ID /etc/beta9/agent.env", check=False)
    except (OSError, ValueError, IndexError, KeyError, SystemExit):
        sound = False
    if not sound:  # the remedy gave the host other files than those that were restored
        play("onboard_worker.yml", **bed.variables)
        bed.learn()
    if bed.values["key"] != old:
        sh(GATEWAY, "redis-cli del %s %s:metrics; redis-cli srem provider:machine:generic:gpu:machine_index %s" % (old, old, old), check=False)
    if sh(GATEWAY, "redis-cli hget %s status" % bed.values["key"], check=False) != "ready":
        print("      the machine is not ready after this fault", flush=True)


def healthy(bed, number):
    """Look at healthy hosts: quiet, after trouble, busy, behind a dead proxy, and just rebooted.

    Return the rows of those that were not called healthy.
    """
    wrong = []
    proxies = "for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY; do echo $name=http://127.0.0.1:9; done"
    for count in range(number):
        place = count / number
        kinds = ((0.4, "quiet"), (0.6, "after_trouble"), (0.7, "busy"), (0.8, "proxied"), (1, "rebooted"))
        kind = next(name for end, name in kinds if place < end)
        if kind == "after_trouble":
            bed.run(trouble.BEFORE)
        if kind == "busy":
            sh(WORKER, "systemd-run -q --collect -p RuntimeMaxSec=20 sh -c 'while :; do :; done'", check=False)
        if kind == "proxied":
            sh(WORKER, proxies + " >> /etc/environment")
        if kind == "rebooted":
            subprocess.run(["podman", "restart", "--time", "5", WORKER], check=True, capture_output=True)
            sh(WORKER, "for n in $(seq 300); do systemctl is-active -q multi-user.target 2>/dev/null && break; sleep 0.1; done")
            sh(WORKER, (ROOT / "tests/faults/equip_worker.sh").read_text())
            bed.run({"worker": 'for n in $(seq 300); do grep -qs \'"status": "ready"\' /run/beta9-agent/state.json && break; sleep 0.1; done'})
        roots, _verdicts, seconds, leaked = bed.check(limit="all")
        if kind == "proxied":
            sh(WORKER, "sed -i /_proxy=/Id /etc/environment")
        if kind == "after_trouble":
            settle(bed)  # the next trouble is another host's: an agent killed ten times in a minute is in a crash loop
        found = sorted({"%s %s" % (verdict["id"], verdict["status"]) for verdict in bed.all_verdicts if verdict["status"] not in ("pass", "not_applicable")})
        if roots or found or leaked:
            wrong.append({"run": count, "kind": kind, "reported_roots": roots, "found": found, "seconds": round(seconds, 2), "secret_shown": leaked})
    return wrong


def share(rows, judge):
    """Return the share of the rows, among those that judge has an opinion on (not None), or None."""
    found = [judge(row) for row in rows]
    known = [entry for entry in found if entry is not None]
    return round(sum(known) / len(known), 4) if known else None


def is_mended(rows, fault):
    """Return whether the pasted remedy or heal_worker.yml ended a fault; None where neither was tried."""
    tried = [entry for row in rows if row["fault"] == fault for entry in (row["remedy"]["mended"], row["healed"]) if entry is not None]
    return any(tried) if tried else None


def summed(rows, commands, wrong, healthy_runs):
    """Return the totals of a run."""
    covered = {fault.root for fault in FAULTS}
    names = sorted({row["fault"] for row in rows})
    seconds = sorted(row["seconds"] for row in rows)
    return {
        "faults": len(rows),
        "right": sum(row["right"] for row in rows),
        "wrong_roots": sum(len(row["wrong_roots"]) for row in rows),
        "called_healthy": sum(row["called_healthy"] for row in rows),
        "to_heal": sum(row["healed"] is not None for row in rows),
        "healed": sum(row["healed"] is True for row in rows),
        "healthy_runs": healthy_runs,
        "false_alarms": len(wrong),
        "commands": len(commands),
        "commands_failed": sum(entry["status"] != 0 for entry in commands),
        "checks_without_fault": [check.id for check in checks.CHECKS if check.id not in covered],
        "median_seconds": seconds[len(seconds) // 2] if seconds else None,
        "settings": {
            name: {"faults": len(mine), "right": sum(row["right"] for row in mine), "called_healthy": sum(row["called_healthy"] for row in mine)}
            for name in dict.fromkeys([*SETTINGS, *(row["setting"] for row in rows)])
            for mine in [[row for row in rows if row["setting"] == name]]
        },
        "shares": {
            "right": share(rows, lambda row: row["right"]),
            "called_healthy": share(rows, lambda row: row["called_healthy"]),
            "remedies_ran": share(rows, lambda row: row["remedy"]["ran"]),
            "mended": share(names, lambda name: is_mended(rows, name)),
        },
    }


def pasted_on_a_healthy_host(bed):
    """Paste every command of the catalogue on a healthy host, the reboot last: each must end with 0, and leave it healthy."""
    hosts = json.loads((STATE / "inventory.yml").read_text())["all"]
    variables = {"hostvars": {WORKER: hosts["vars"]}, "ansible_inventory_sources": [str(STATE / "inventory.yml")]}
    told = health_remedies.Remedies(variables, GATEWAY)
    verdicts = [{"id": check.id, "remedy": remedy._asdict()} for check in checks.CHECKS for _cause, remedy in check.causes.values() if remedy.command]
    told.complete(verdicts, WORKER)
    unique = {entry["remedy"]["command"]: entry for entry in verdicts}
    found = []
    for command, entry in sorted(unique.items(), key=lambda item: item[0] == gpu.REBOOT.command):
        if "tailscale" in command:
            continue  # tests/tailnet has a tailnet
        status, output = paste(bed, entry["remedy"])
        if status:  # what the command before it restarted may still be starting
            time.sleep(10)
            status, output = paste(bed, entry["remedy"])
        found.append({"check": entry["id"], "where": entry["remedy"]["where"], "command": command, "status": status})
        if status:
            found[-1]["output"] = output[-800:]
            print("WRONG on a healthy host: %s: %s\n%s" % (status, command, output[-800:]), flush=True)
    bed.learn()  # one of the commands makes a new machine
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose name or root contains one of these, separated by commas")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="default: %(default)s")
    parser.add_argument("--every", type=int, default=1, help="only every Nth of all faults in all settings: a sample")
    parser.add_argument("--commands", action="store_true", help="also paste every command of the catalogue on a healthy host")
    parser.add_argument("--healthy", type=int, default=50)
    parser.add_argument("--no-heal", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the hosts running")
    options = parser.parse_args()
    if LATE in options.settings and options.settings != LATE:
        parser.error("--settings %s: the hosts of %s have other times than those of the others, run it alone" % (options.settings, LATE))
    REPORT.mkdir(parents=True, exist_ok=True)
    bed = Bed()
    bed.start(late=LATE in options.settings)
    started, rows = time.monotonic(), []
    wanted = options.only.lower().split(",")
    chosen = [fault for fault in FAULTS if any(words in f"{fault.name} {fault.root}".lower() for words in wanted)]
    by_name = {fault.name: fault for fault in FAULTS}
    jobs = [(fault.name, [fault.root], [fault]) for fault in chosen]
    if not options.only:
        jobs += [(" + ".join(pair), [by_name[name].root for name in pair], [by_name[name] for name in pair]) for pair in PAIRS]
    jobs = [(*job, setting) for job in jobs for setting in options.settings.split(",") if setting != LATE or not any(fault.over for fault in job[2])]
    commands = pasted_on_a_healthy_host(bed) if options.commands else []
    for name, expected, faults, setting in jobs[options.every // 2 :: options.every]:
        row = one(bed, name, expected, faults, setting, not options.no_heal)
        rows.append(row)
        remedy = row["remedy"]
        words = [row.get("code", ""), {True: "healed", False: "NOT HEALED", None: ""}[row["healed"]]]
        words += ["CALLED HEALTHY"] if row["called_healthy"] else []
        words += (
            ["remedy " + ("mended" if remedy["mended"] else "DID NOT REMEDIATE" if remedy["mended"] is False else "shown")] if remedy["ran"] else []
        )
        words += ["REMEDY FAILED"] if remedy["ran"] is False else []
        line = (" ".join(filter(None, words)), row["seconds"])
        print("%-5s %-44s %-13s %-9s %s %s %.1f s" % (
            "ok" if row["right"] else "WRONG", name[:44], setting, "+".join(expected), ",".join(row["reported_roots"]) or row["outcome"], *line
        ), flush=True)  # fmt: skip
    wrong = healthy(bed, options.healthy)
    for row in wrong:
        print("WRONG healthy run", row, flush=True)
    totals = summed(rows, commands, wrong, options.healthy)
    totals["seconds"] = round(time.monotonic() - started, 1)
    result = {"faults": rows, "commands": commands, "healthy": wrong, "totals": totals}
    (ROOT / "build" / "faults.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(totals, indent=1))
    if not options.keep:
        subprocess.run([sys.executable, str(ROOT / "tests/testbed/testbed.py"), "down"], check=True, env=dict(os.environ, B9_TESTBED=NAME))
    reached = all(totals["shares"][name] is None or totals["shares"][name] >= least for name, least in BARS.items())
    return 0 if reached and not totals["called_healthy"] and not totals["commands_failed"] and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
