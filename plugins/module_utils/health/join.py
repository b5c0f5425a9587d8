# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that compare what two sides saw. Pure: data of observations in, observations out."""

from __future__ import annotations

from typing import Any, Iterable

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation, observation


def _observation(identity: str, outcome: str, found: str, code: str = "") -> Observation:
    return observation(outcome, found, code, identity=identity)


def join(observations: Iterable[Observation], settings: dict[str, Any]) -> list[Observation]:
    """Return the observations of the checks that need both sides. settings: {"gpus", "connection",
    "tunnel_target_port"}."""
    data = {seen["id"]: seen.get("data") or {} for seen in observations}
    outcomes = {seen["id"]: seen["outcome"] for seen in observations}
    return [_advertised(data, outcomes), _owner(data), _nodeport(data, settings)]


def _advertised(data: dict[str, Any], outcomes: dict[str, str]) -> Observation:
    if outcomes.get("U03") == "not_applicable":
        return _observation("U06", "not_applicable", "no GPU")
    here = data.get("U03", {}).get("gpu_count")
    there = data.get("M02", {}).get("gpu_count", data.get("C02", {}).get("gpu_count"))
    if here is None or there is None:
        return _observation("U06", "unknown", "one side could not be read")
    return _observation("U06", "ok" if here == there else "bad", f"{here} here, {there} at the gateway")


def _owner(data: dict[str, Any]) -> Observation:
    here, there = data.get("A01", {}).get("owner"), data.get("M02", {}).get("owner")
    if here and there == "":
        return _observation(
            "M05",
            "not_applicable",
            "the gateway keeps no token of a machine that registered again after its state expired",
        )
    if not here or not there:
        return _observation("M05", "unknown", "one side could not be read")
    return _observation(
        "M05",
        "ok" if here == there else "bad",
        "the same token" if here == there else "another token than the gateway made for this machine",
    )


def _nodeport(data: dict[str, Any], settings: dict[str, Any]) -> Observation:
    if not connections.gives(settings.get("connection"), connections.TUNNEL):
        return _observation("G04", "not_applicable", "no tunnel")
    there, here = data.get("nodeport", {}).get("nodeport"), data.get("T06", {}).get("target_port")
    if not here or not there:
        return _observation("G04", "unknown", "one side could not be read")
    return _observation("G04", "ok" if here == there else "bad", f"tunnel to {here}, NodePort {there}")
