# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How well the GPUs are, as NVML says: read() asks, findings() judges. Shared by the health check and the agent.

A reading is {"driver": version, "gpus": [{"index", "uuid", "name", and what _gpu() names}]}; a value is None where GPU
or driver do not tell it: consumer GPUs have no ECC, no row remapper and no NVLink. Power is in milliwatts, temperatures
are in degrees Celsius, clocks in MHz. Nothing is written to a GPU. Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

# Codes and bits of nvml.h
NOT_SUPPORTED, NO_PERMISSION, INVALID_ARGUMENT = 3, 4, 2
GPU_IS_LOST, RESET_REQUIRED = 15, 16
VOLATILE, UNCORRECTED = 0, 1
SLOWDOWN_THRESHOLD, TEMPERATURE_GPU, CLOCK_SM, P2P_READ = 1, 0, 1, 0
P2P_OK, P2P_REGKEY = 0, 4
LINK_RECOVERY = 1
GPU_IDLE, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, HW_POWER_BRAKE = 0x1, 0x8, 0x20, 0x40, 0x80
FABRIC_NOT_STARTED, FABRIC_IN_PROGRESS, FABRIC_COMPLETED = 1, 2, 3
FABRIC_DEGRADED = 1  # of two bits: 0 does not tell, 1 is degraded, 2 is not
RECOVERY_FIELD = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
RECOVERY = {
    1: "reset",
    2: "reboot",
    3: "drain its peers",
    4: "drain and reset",
    5: "recover the IMEX domain",
    6: "reset its bus",
    7: "reboot",
}
BUSY_PSTATES = 2  # P0 to P2 are those in which programs compute; below them a GPU slows its PCIe link down

WARN, FAIL, GRAVE = "warn", "fail", "grave"  # grave: nothing that is started on the GPU may be expected to go well


class Finding(NamedTuple):
    """Something that is wrong with one GPU. check and code: of the catalogue of checks. severity: WARN, FAIL or
    GRAVE."""

    check: str
    code: str
    gpu: int
    text: str
    severity: str


class Rule(NamedTuple):
    """says returns what is wrong with a GPU in words, or an empty text; it is asked where all fields of needs are
    told."""

    check: str
    code: str
    severity: str
    needs: Tuple[str, ...]
    explain: Callable[[Dict[str, Any]], str]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _ask(nvml: Any, name: str, *arguments: Any) -> Any:
    """Return the answer of a call, or None where library, driver or GPU do not have it. Raises where the GPU is lost
    or has to be reset."""
    call = getattr(nvml, name, None)
    if call is None:
        return None
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        if error.value in (GPU_IS_LOST, RESET_REQUIRED):
            raise
        return None


def _all(*values: Any) -> Optional[List[Any]]:
    return None if None in values else list(values)


def _links(nvml: Any, handle: Any) -> Optional[List[int]]:
    """Return [active links, links, recoveries of all links], or None without NVLink."""
    active, links, recoveries = 0, 0, 0
    for link in range(getattr(nvml, "NVML_NVLINK_MAX_LINKS", 18)):
        state = _ask(nvml, "nvmlDeviceGetNvLinkState", handle, link)
        if state is None:
            break
        links += 1
        if state:
            active += 1
            recoveries += _ask(nvml, "nvmlDeviceGetNvLinkErrorCounter", handle, link, LINK_RECOVERY) or 0
    return [active, links, recoveries] if links else None


def _fabric(nvml: Any, handle: Any) -> Optional[List[int]]:
    """Return [state, status, health mask] of the GPU in its NVSwitch fabric, or None without one."""
    for call, structure in (
        ("nvmlDeviceGetGpuFabricInfoV", "c_nvmlGpuFabricInfo_v2_t"),
        ("nvmlDeviceGetGpuFabricInfo", "c_nvmlGpuFabricInfo_t"),
    ):
        if hasattr(nvml, structure):
            info = getattr(nvml, structure)()
            if _ask(nvml, call, handle, ctypes.byref(info)) is not None:
                state = info.state & 0xFF  # one octet in nvml.h, and what pads it is nobody's
                return [state, info.status, getattr(info, "healthMask", 0)] if state else None
    return None


def _recovery(nvml: Any, handle: Any) -> Optional[int]:
    values = _ask(nvml, "nvmlDeviceGetFieldValues", handle, [RECOVERY_FIELD])
    return values[0].value.uiVal if values and values[0].nvmlReturn == 0 else None


def _worn_out(nvml: Any, handle: Any) -> Optional[bool]:
    """Return whether the GPU's SRAM had more uncorrectable errors than NVIDIA lets it have; None where it has no such
    flag."""
    if not hasattr(nvml, "c_nvmlEccSramErrorStatus_v1_t"):
        return None
    status = nvml.c_nvmlEccSramErrorStatus_v1_t()
    told = _ask(nvml, "nvmlDeviceGetSramEccErrorStatus", handle, ctypes.byref(status)) is not None
    return bool(status.bThresholdExceeded) if told else None


def _processes(nvml: Any, handle: Any) -> Optional[List[int]]:
    found = _ask(nvml, "nvmlDeviceGetComputeRunningProcesses", handle)
    return None if found is None else sorted({process.pid for process in found if process.pid})


def _instances(nvml: Any, handle: Any) -> int:
    """Return how many MIG instances a GPU is cut into."""
    most = _ask(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0
    return sum(_ask(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, number) is not None for number in range(most))


def _gpu(nvml: Any, handle: Any) -> Dict[str, Any]:
    """Return the fields of one GPU."""

    def ask(name: str, *arguments: Any) -> Any:
        return _ask(nvml, name, handle, *arguments)

    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
    used, mig = ask("nvmlDeviceGetUtilizationRates"), ask("nvmlDeviceGetMigMode")
    return {
        "uuid": _text(ask("nvmlDeviceGetUUID")),
        "name": _text(ask("nvmlDeviceGetName")),
        "recovery": _recovery(nvml, handle),
        "ecc": ask("nvmlDeviceGetEccMode"),
        "ecc_default": ask("nvmlDeviceGetDefaultEccMode"),
        "uncorrected": ask("nvmlDeviceGetTotalEccErrors", UNCORRECTED, VOLATILE),
        "sram_worn_out": _worn_out(nvml, handle),
        "rows": ask("nvmlDeviceGetRemappedRows"),
        "repairs": ask("nvmlDeviceGetRepairStatus"),
        "pages_pending": ask("nvmlDeviceGetRetiredPagesPendingStatus"),
        "reasons": ask("nvmlDeviceGetCurrentClocksThrottleReasons") if reasons is None else reasons,
        "temperature": ask("nvmlDeviceGetTemperature", TEMPERATURE_GPU),
        "slowdown_temperature": ask("nvmlDeviceGetTemperatureThreshold", SLOWDOWN_THRESHOLD),
        "power": ask("nvmlDeviceGetPowerUsage"),
        "power_limits": _all(ask("nvmlDeviceGetEnforcedPowerLimit"), ask("nvmlDeviceGetPowerManagementDefaultLimit")),
        "clocks": _all(
            ask("nvmlDeviceGetApplicationsClock", CLOCK_SM), ask("nvmlDeviceGetDefaultApplicationsClock", CLOCK_SM)
        ),
        "pcie": _all(
            *(
                ask(f"nvmlDeviceGet{which}PcieLink{what}")
                for what in ("Generation", "Width")
                for which in ("Curr", "Max")
            )
        ),
        "pstate": ask("nvmlDeviceGetPerformanceState"),
        "utilization": None if used is None else used.gpu,
        "links": _links(nvml, handle),
        "persistence": ask("nvmlDeviceGetPersistenceMode"),
        "mig": mig,
        "instances": _instances(nvml, handle) if mig and mig[0] else None,
        "firmware": _text(ask("nvmlDeviceGetGspFirmwareVersion")) or None,
        "fabric": _fabric(nvml, handle),
        "processes": _processes(nvml, handle),
    }


def read(nvml: Any) -> Dict[str, Any]:
    """Return a reading. nvml: the module pynvml, initialised. A GPU that does not answer has "unreachable" and
    nothing else."""
    driver = _text(_ask(nvml, "nvmlSystemGetDriverVersion"))
    gpus: List[Dict[str, Any]] = []
    handles = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            gpus.append(dict(_gpu(nvml, handle), index=index))
            handles[index] = handle
        except nvml.NVMLError as error:
            gpus.append({"index": index, "unreachable": error.value, "why": str(error)})
    for gpu in gpus:
        alike = [other["links"][0] for other in gpus if other.get("links") and other.get("name") == gpu.get("name")]
        gpu.update(driver=driver or None, most_links=max(alike) if alike else None, peers=None)
        if gpu["index"] in handles and len(handles) > 1:
            gpu["peers"] = {
                str(other): _ask(nvml, "nvmlDeviceGetP2PStatus", handles[gpu["index"]], handle, P2P_READ)
                for other, handle in handles.items()
                if other > gpu["index"]
            }
    return {"driver": driver, "gpus": gpus}


# -- what is wrong, by field: each function is asked only where the fields are told --


def _unreachable(wanted: Optional[int]) -> Callable[[Dict[str, Any]], str]:
    def explain(gpu: Dict[str, Any]) -> str:
        found = gpu["unreachable"]
        fits = found == wanted if wanted else found not in (GPU_IS_LOST, RESET_REQUIRED)
        return f"does not answer: NVML error {found}, {gpu['why']}" if fits else ""

    return explain


def _throttled(mask: int, without: int, what: str) -> Callable[[Dict[str, Any]], str]:
    def explain(gpu: Dict[str, Any]) -> str:
        if not gpu["reasons"] & mask or gpu["reasons"] & without:
            return ""
        limit = f" (slows down at {gpu['slowdown_temperature']})" if gpu["slowdown_temperature"] else ""
        watts = f", {gpu['power'] // 1000} W" if gpu["power"] else ""
        return f"{what}, at {gpu['temperature']} degrees{limit}{watts}"

    return explain


def _repair(gpu: Dict[str, Any]) -> str:
    waiting = [what for what, pending in zip(("memory channel", "TPC"), gpu["repairs"]) if pending]
    return f"a {' and a '.join(waiting)} of it is to be replaced by a spare one" if waiting else ""


def _slow_link(gpu: Dict[str, Any]) -> str:
    generation, most, width, widest = gpu["pcie"]
    if not in_use(gpu) or (generation >= most and width >= widest):
        return ""
    return f"PCIe generation {generation} x{width} under load, of generation {most} x{widest}"


def _peers(wrong: Callable[[Dict[str, Any], int], bool]) -> Callable[[Dict[str, Any]], str]:
    def explain(gpu: Dict[str, Any]) -> str:
        found = [other for other, status in sorted(gpu["peers"].items()) if status is not None and wrong(gpu, status)]
        return f"can't read the memory of GPU {', '.join(found)} directly" if found else ""

    return explain


def _fabric_fault(state: int, text: str) -> Callable[[Dict[str, Any]], str]:
    return lambda gpu: text if gpu["fabric"][0] == state else ""


def _fabric_failed(gpu: Dict[str, Any]) -> str:
    state, status, _mask = gpu["fabric"]
    return f"joined its NVLink fabric with NVML error {status}" if state == FABRIC_COMPLETED and status else ""


RULES = (
    Rule("U09", "lost", GRAVE, ("unreachable",), _unreachable(GPU_IS_LOST)),
    Rule("U09", "reset", GRAVE, ("unreachable",), _unreachable(RESET_REQUIRED)),
    Rule("U09", "", GRAVE, ("unreachable",), _unreachable(None)),
    Rule(
        "U09",
        "recovery",
        GRAVE,
        ("recovery",),
        lambda gpu: f"the driver asks to {RECOVERY.get(gpu['recovery'], 'recover')}" if gpu["recovery"] else "",
    ),
    Rule(
        "U10",
        "disabled",
        WARN,
        ("ecc", "ecc_default"),
        lambda gpu: "ECC is off" if gpu["ecc_default"][0] and not gpu["ecc"][1] else "",
    ),
    Rule(
        "U10",
        "pending",
        WARN,
        ("ecc",),
        lambda gpu: (
            f"ECC is {'on' if gpu['ecc'][0] else 'off'} until a reboot" if gpu["ecc"][0] != gpu["ecc"][1] else ""
        ),
    ),
    Rule(
        "U11",
        "sram",
        GRAVE,
        ("sram_worn_out",),
        lambda gpu: "more uncorrectable SRAM errors than NVIDIA allows" if gpu["sram_worn_out"] else "",
    ),
    Rule(
        "U11",
        "",
        GRAVE,
        ("uncorrected",),
        lambda gpu: f"{gpu['uncorrected']} uncorrectable memory errors" if gpu["uncorrected"] else "",
    ),
    Rule(
        "U12",
        "failed",
        GRAVE,
        ("rows",),
        lambda gpu: "a row of its memory could not be remapped" if gpu["rows"][3] else "",
    ),
    Rule(
        "U12",
        "pending",
        GRAVE,
        ("rows",),
        lambda gpu: "a row of its memory is to be remapped" if gpu["rows"][2] else "",
    ),
    Rule("U12", "repair", GRAVE, ("repairs",), _repair),
    Rule(
        "U12",
        "pages",
        GRAVE,
        ("pages_pending",),
        lambda gpu: "a page of its memory is to be retired" if gpu["pages_pending"] else "",
    ),
    Rule("U13", "thermal", FAIL, ("reasons",), _throttled(HW_THERMAL, 0, "throttled by its heat")),
    Rule("U13", "power_brake", FAIL, ("reasons",), _throttled(HW_POWER_BRAKE, 0, "throttled by the power brake")),
    Rule("U13", "thermal", WARN, ("reasons",), _throttled(SW_THERMAL, HW_THERMAL, "slowed down by its heat")),
    Rule(
        "U13",
        "slowdown",
        WARN,
        ("reasons",),
        _throttled(HW_SLOWDOWN, HW_THERMAL | HW_POWER_BRAKE, "slowed down by its hardware"),
    ),
    Rule(
        "U14",
        "",
        WARN,
        ("power_limits",),
        lambda gpu: (
            f"may draw {gpu['power_limits'][0] // 1000} W of {gpu['power_limits'][1] // 1000} W"
            if gpu["power_limits"][0] < gpu["power_limits"][1]
            else ""
        ),
    ),
    Rule(
        "U15",
        "",
        WARN,
        ("clocks",),
        lambda gpu: (
            f"runs at {gpu['clocks'][0]} MHz of {gpu['clocks'][1]} MHz" if gpu["clocks"][0] < gpu["clocks"][1] else ""
        ),
    ),
    Rule("U16", "", FAIL, ("pcie",), _slow_link),
    Rule(
        "U17",
        "down",
        FAIL,
        ("links", "most_links"),
        lambda gpu: (
            f"{gpu['links'][0]} of {gpu['most_links']} links are up" if gpu["links"][0] < gpu["most_links"] else ""
        ),
    ),
    Rule(
        "U17",
        "errors",
        WARN,
        ("links",),
        lambda gpu: f"its links were recovered {gpu['links'][2]} times" if gpu["links"][2] else "",
    ),
    Rule("U18", "", WARN, ("persistence",), lambda gpu: "" if gpu["persistence"] else "persistence mode is off"),
    Rule(
        "U19",
        "pending",
        WARN,
        ("mig",),
        lambda gpu: f"MIG is to be {'on' if gpu['mig'][1] else 'off'}" if gpu["mig"][0] != gpu["mig"][1] else "",
    ),
    Rule(
        "U19",
        "empty",
        FAIL,
        ("instances",),
        lambda gpu: "" if gpu["instances"] else "MIG is on, and there is no instance",
    ),
    Rule(
        "U20",
        "",
        FAIL,
        ("firmware", "driver"),
        lambda gpu: (
            f"firmware {gpu['firmware']}, driver {gpu['driver']}"
            if gpu["firmware"] not in ("N/A", gpu["driver"])
            else ""
        ),
    ),
    Rule("U21", "failed", GRAVE, ("fabric",), _fabric_failed),
    Rule("U21", "not_started", GRAVE, ("fabric",), _fabric_fault(FABRIC_NOT_STARTED, "is not in its NVLink fabric")),
    Rule(
        "U21", "in_progress", WARN, ("fabric",), _fabric_fault(FABRIC_IN_PROGRESS, "is still joining its NVLink fabric")
    ),
    Rule(
        "U21",
        "degraded",
        WARN,
        ("fabric",),
        lambda gpu: "has less NVLink bandwidth than it should" if gpu["fabric"][2] & 3 == FABRIC_DEGRADED else "",
    ),
    Rule("U22", "disabled", WARN, ("peers", "links"), _peers(lambda gpu, status: status == P2P_REGKEY)),
    Rule(
        "U22",
        "",
        WARN,
        ("peers", "links"),
        _peers(lambda gpu, status: status not in (P2P_OK, P2P_REGKEY) and gpu["links"][0] > 0),
    ),
)


def in_use(gpu: Dict[str, Any]) -> bool:
    """Return whether a GPU computes just now, so that its clocks and its link are not slowed down to save power.

    The utilization is that of the last second or so: a GPU that has just become idle says so among its reasons.
    """
    if (gpu.get("reasons") or 0) & GPU_IDLE:
        return False
    return bool(gpu.get("utilization")) and gpu.get("pstate") is not None and gpu["pstate"] <= BUSY_PSTATES


def findings(reading: Dict[str, Any]) -> List[Finding]:
    """Return what is wrong, the gravest of each check first."""
    found = []
    for rule in RULES:
        for gpu in reading["gpus"]:
            text = rule.explain(gpu) if _has(gpu, rule.needs) else ""
            if text:
                found.append(Finding(rule.check, rule.code, gpu["index"], text, rule.severity))
    return found


def reporting(reading: Dict[str, Any], check: str) -> int:
    """Return how many GPUs tell something that a check looks at."""
    rules = [rule for rule in RULES if rule.check == check]
    if check == "U09":  # any answer is one
        return len(reading["gpus"])
    return sum(any(_has(gpu, rule.needs) for rule in rules) for gpu in reading["gpus"])


def _has(gpu: Dict[str, Any], needs: Tuple[str, ...]) -> bool:
    return all(gpu.get(name) is not None for name in needs)


def main() -> None:
    """Write a reading as JSON. Run as a program by the agent's own Python, which has NVIDIA's package."""
    import pynvml  # only here: modules run on hosts that do not have it

    pynvml.nvmlInit()
    sys.stdout.write(json.dumps(read(pynvml)))


if __name__ == "__main__":
    main()
