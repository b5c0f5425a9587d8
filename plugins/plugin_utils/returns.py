# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Made by tools/generate.py from the documentation of the modules. Do not edit.
"""{module: {name: type}} of every value that a module documents as returned."""

from __future__ import annotations

RETURNS: dict[str, dict[str, type]] = {
    "agent_bundle": {"bundles": dict},
    "agent_install": {"bundle_needed": bool, "previous": str},
    "agent_status": {"status": str, "agent_version": str, "gpu_count": int, "code": str, "cause": str, "remedy": str},
    "agent_switch": {"status": str, "agent_version": str, "previous": str, "switched_back": bool, "code": str, "cause": str, "remedy": str},
    "check_verdict": {"status": str, "msg": str},
    "gateway_preflight": {"problems": list, "hostnames": str, "code": str, "cause": str, "remedy": str, "retryable": bool},
    "gateway_reachable": {"reachable": bool, "cause": str},
    "gpu_acceptance": {"gpus": list, "offered": list, "problems": list, "remembered": bool, "dcgm": str},
    "health_report": {"msg": str, "hosts": dict, "roots": list, "files": list, "since": float},
    "host_files": {"paths": list},
    "host_initramfs": {"rebuilt": list, "reason": str},
    "host_packages": {"packages": dict, "held": list, "removed": list, "waited": bool},
    "host_preflight": {"problems": list, "facts": dict},
    "host_repository": {"paths": list, "fingerprints": list},
    "host_step": {"stdout": str, "stderr": str, "rc": int},
    "host_unit": {"actions": list, "reason": str},
    "k3s_install": {"previous": str, "needed": list, "code": str, "cause": str, "remedy": str},
    "k3s_preflight": {"problems": list, "node_name": str, "files": dict},
    "k3s_ready": {"version": str, "gpus": int, "others": list, "rolled_back_to": str, "code": str, "cause": str, "remedy": str},
    "k3s_remove": {"left": list},
    "k3s_token": {"code": str, "cause": str, "remedy": str},
    "machine": {"machine": dict, "registration_token": str, "token_revoked": bool, "code": str, "cause": str, "remedy": str, "retryable": bool},
    "machine_credentials": {"machine": dict, "taken": bool, "dropped": dict},
    "machine_drain": {"workers": list, "code": str, "cause": str, "remedy": str},
    "machine_enrol": {"machine": dict},
    "machine_info": {"machines": list, "code": str, "cause": str, "remedy": str, "retryable": bool},
    "machine_keepalive": {"machine": dict, "code": str, "cause": str, "remedy": str, "retryable": bool},
    "machine_register": {"machine": dict, "code": str, "cause": str, "remedy": str, "retryable": bool},
    "nvidia_cdi": {"path": str, "devices": list},
    "nvidia_host": {"facts": dict, "cuda": dict},
    "pool_info": {"pools": list, "code": str, "cause": str, "remedy": str, "retryable": bool},
    "tailscale_info": {"version": str, "node": dict, "path": str, "nft": bool, "system": dict, "over_tailnet": bool, "peers": list, "joined_by_us": bool},
    "tailscale_node": {"node": dict, "actions": list, "ours": bool, "path": str, "pending": bool, "code": str},
    "tunnel_key": {"public_key": str, "running": bool},
    "tunnel_peer": {"listen_address": str, "host_keys": list, "key_types": list, "copied": bool},
    "tunnel_sshd": {"actions": list, "problems": list, "host_keys": list},
    "worker_health": {"observations": list, "limited": str, "settings": dict, "identity": dict, "started": float, "nonce": str},
}  # fmt: skip
