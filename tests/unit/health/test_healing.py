"""What heal_worker.yml chooses to do, waits for, and says of it: from verdicts as health_report gives them."""

from __future__ import annotations

import re

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, diagnose
from ansible_collections.beta9.workers.plugins.plugin_utils import health_healing, health_remedies

REMEDIES = health_remedies.Remedies({"hostvars": {"gpu-1": {}}}, "gate")


def health(message="", **seen):
    """Return a host's health: everything ok but what is named, as outcome or (outcome, code)."""
    observations = []
    for check in catalog.CHECKS:
        outcome, code = seen.get(check.id, "ok"), ""
        if isinstance(outcome, tuple):
            outcome, code = outcome
        observations.append({"id": check.id, "outcome": outcome, "code": code, "found": "as found in %s" % check.id})
    verdicts = diagnose.clean(diagnose.diagnose(observations))
    REMEDIES.complete(verdicts, "gpu-1")
    return {"outcome": diagnose.outcome(verdicts), "message": message, "verdicts": verdicts}


UNREACHABLE = {"outcome": "unreachable", "message": "No route to host", "verdicts": []}


def does(plan):
    return {root["id"]: root["does"] for root in plan["roots"]}


@pytest.mark.parametrize(
    ("seen", "opt_in", "remedies", "expected"),
    [
        ({}, True, [], {}),
        ({"T01": ("bad", "stopped"), "T02": "bad", "M02": "bad"}, False, ["tunnel_start"], {"T01": "heal"}),
        ({"T08": ("bad", "host_key"), "T01": "bad"}, True, [], {"T08": "person"}),
        ({"T08": ("bad", "key_refused")}, False, ["tunnel_install"], {"T08": "heal"}),
        ({"T01": ("bad", "masked")}, False, ["tunnel_install"], {"T01": "heal"}),
        ({"C04": ("bad", "mode")}, False, ["protect"], {"C04": "heal"}),
        ({"P06": "bad"}, True, [], {"P06": "person"}),
        ({"T06": "bad", "A01": ("bad", "missing")}, False, ["tunnel_install"], {"T06": "heal", "A01": "ask"}),
        (
            {"T06": "bad", "A01": ("bad", "missing")},
            True,
            ["onboard", "tunnel_install"],
            {"T06": "heal", "A01": "heal"},
        ),
        ({"K02": "bad", "C03": "bad"}, False, ["k3s_start", "time_sync"], {"C03": "heal", "K02": "heal"}),
        # what only the past shows is no reason to do anything
        ({"T05": ("bad", "drops")}, True, [], {"T05": "watch"}),
        ({"P02": "bad"}, True, [], {"P02": "watch"}),
        ({"M06": "bad"}, True, [], {"M06": "watch"}),
        ({"K06": "bad"}, True, [], {"K06": "watch"}),
        ({"P01": ("bad", "duplicate"), "M02": "bad"}, True, [], {"P01": "person"}),
        ({"C01": ("bad", "no_machine")}, False, [], {"C01": "ask"}),
        ({"A01": "unknown", "T01": "crash"}, True, [], {}),
    ],
)
def test_plan(seen, opt_in, remedies, expected):
    plan = health_healing.plan(health(**seen), opt_in)
    assert (plan["remedies"], does(plan)) == (remedies, expected)
    assert {root["heal"] for root in plan["roots"]} - {""} == set(remedies)
    assert all(root["cause"] and root["remedy"] for root in plan["roots"])


def test_plan_of_a_host_that_was_not_seen():
    assert health_healing.plan(UNREACHABLE, True) == {"remedies": [], "roots": []}


def test_what_may_create_a_machine_is_never_done_unasked():
    found = [(check.id, code) for check in catalog.CHECKS for code in check.causes if check.heals.get(code, check.heal) == "onboard"]
    assert ("A01", "missing") in found
    for name, code in found:
        seen = health(**{name: ("bad", code)})
        assert does(health_healing.plan(seen)) == {name: "ask"} and does(health_healing.plan(seen, True)) == {name: "heal"}


def test_healed():
    plan = health_healing.plan(health(T01=("bad", "stopped"), M02="bad"))
    found = health_healing.outcome(plan, health())
    assert found == {
        "healthy": True,
        "message": "healthy",
        "rows": [["T01 tunnel.process", "restarted the tunnel", "healed"]],
    }


def test_not_healed_says_why():
    ill = health(T01=("bad", "stopped"))
    plan = health_healing.plan(ill)
    found = health_healing.outcome(plan, ill)
    assert not found["healthy"]
    assert found["rows"][0][2] == "not healed (fail): as found in T01. Do: on gpu-1: systemctl restart beta9-tunnel"
    assert "T01" in found["message"] and "not healed" in found["message"]
    found = health_healing.outcome(plan, ill, "Install the SSH client: no space left")
    assert "Install the SSH client: no space left" in found["rows"][0][2] and len(found["rows"]) == 1


def test_what_is_not_seen_again_is_not_healed():
    plan = health_healing.plan(health(T01=("bad", "stopped")))
    found = health_healing.outcome(plan, UNREACHABLE)
    assert not found["healthy"] and found["rows"][0][2].startswith("not healed (unknown): No route to host")
    assert found["rows"][1] == ["-", "see above", "could not tell: No route to host"]
    assert health_healing.outcome(health_healing.plan(UNREACHABLE), UNREACHABLE)["rows"] == [["-", "nothing", "could not tell: No route to host"]]


def test_every_root_cause_is_judged_again():
    """Host 2 must not be called healed by the checks of host 1, nor by the root that its own remedy ended."""
    before = health(T06="bad", K02="bad", A01=("bad", "missing"))
    plan = health_healing.plan(before)
    found = health_healing.outcome(plan, health(K02="bad", A01=("bad", "missing")))
    results = {row[0].split()[0]: row[2].split(":")[0].split(" (")[0] for row in found["rows"]}
    assert results == {"T06": "healed", "K02": "not healed", "A01": "needs to be asked for"} and not found["healthy"]


def test_what_healing_uncovers_is_told():
    plan = health_healing.plan(health(P03=("bad", "missing")))
    found = health_healing.outcome(plan, health(A01=("bad", "token_unknown")))
    assert [row[0].split()[0] for row in found["rows"]] == ["P03", "A01"] and not found["healthy"]
    assert "seen only now" in found["rows"][1][2] and "heal_opt_in=true" in found["rows"][1][2]
    told = [health_healing.outcome(plan, health(**{name: ("bad", code)}))["rows"][1][2] for name, code in (("T01", "stopped"), ("P06", ""))]
    assert "heal_worker.yml heals it" in told[0] and "needs a person" in told[1]


def test_warnings_do_not_make_a_host_ill():
    seen = health(T05=("bad", "drops"))
    found = health_healing.outcome(health_healing.plan(seen), seen)
    assert found["healthy"] and found["message"] == "healthy" and found["rows"][0][1:] == ["nothing", "left alone: a warning"]
    later = health(T05=("bad", "drops"))
    assert len(health_healing.outcome(health_healing.plan(health()), later)["rows"]) == 0


def test_a_remedy_that_failed_is_told_though_the_host_is_healthy():
    plan = health_healing.plan(health(T01=("bad", "stopped")))
    found = health_healing.outcome(plan, health(), "Ensure the tunnel runs: no")
    assert not found["healthy"] and found["rows"][1:] == [["-", "a remedy did not run to its end", "Ensure the tunnel runs: no"]]


def test_person_and_check_mode():
    seen = health(T08=("bad", "host_key"), K02="bad")
    plan = health_healing.plan(seen)
    rows = {row[0].split()[0]: row[1:] for row in health_healing.outcome(plan, seen, check=True)["rows"]}
    assert rows["K02"] == ["started k3s", "not done: check mode"]
    assert rows["T08"][0] == "nothing" and "needs a person. Do: Compare the fingerprint" in rows["T08"][1]


def test_awaited():
    tunnel, person = health(T01=("bad", "stopped"), M02="bad"), health(T01=("bad", "stopped"), K03="bad")
    plans = {name: health_healing.plan(found) for name, found in (("a", tunnel), ("b", person), ("c", health()), ("d", tunnel))}
    assert health_healing.awaited(plans, {"a": tunnel, "b": person, "c": tunnel, "d": UNREACHABLE}) == ["a", "b"]
    # healed, but a consequence lasts: waited for where no other cause is left
    later = {"a": health(M02="bad"), "b": health(K03="bad", M02="bad"), "c": health(), "d": health()}
    assert health_healing.awaited(plans, later) == ["a"]
    assert health_healing.awaited(plans, {}) == []


def test_table():
    plan = health_healing.plan(health(T01=("bad", "stopped")))
    lines = health_healing.table(
        {
            "gpu-1": health_healing.outcome(plan, health()),
            "gpu-2": health_healing.outcome({"remedies": [], "roots": []}, health()),
        }
    )
    assert [re.split(r"  +", line) for line in lines] == [
        ["HOST", "ROOT CAUSE", "DONE", "RESULT"],
        ["gpu-1", "T01 tunnel.process", "restarted the tunnel", "healed"],
        ["gpu-2", "-", "nothing", "healthy"],
    ]


def test_every_heal_has_a_task_and_a_cause():
    playbook = (health_remedies.ROOT / "playbooks" / "heal_worker.yml").read_text(encoding="utf-8")
    conditions = " ".join(line for line in playbook.splitlines() if "heal_plan.remedies" in line and "selectattr" not in line)
    assert set(re.findall(r"'(\w+)'", conditions)) == set(catalog.HEALS)
    used = {check.heals.get(code, check.heal) for check in catalog.CHECKS for code in check.causes}
    assert used - {""} == set(catalog.HEALS)


def test_healthy_though_the_check_could_not_look_again():
    plan = health_healing.plan(health(P03=("bad", "missing")))
    found = health_healing.outcome(plan, health(P03="unknown"))
    assert found["healthy"] and found["message"] == "healthy" and "could not run again" in found["rows"][0][2]
    again = health_healing.outcome(plan, health(P03="unknown", M01="unknown", M02="unknown", C02="unknown"))
    assert not again["healthy"] and again["rows"][0][2].startswith("not healed (unknown)")
