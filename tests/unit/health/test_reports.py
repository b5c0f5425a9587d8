"""Reports: one line a root however many hosts, valid XML and JSON, nothing unescaped."""

from __future__ import annotations

import json
import pathlib
import re
from xml.etree import ElementTree

import jsonschema
import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, diagnose
from ansible_collections.beta9.workers.plugins.plugin_utils import health_causes, health_remedies, health_reports

REMEDIES = health_remedies.Remedies({"hostvars": {"gpu-%02d" % number: {} for number in range(30)}}, "gate")
RUN = {"started": "2026-01-01T00:00:00Z", "seconds": 2.5}


def result(host, **outcomes):
    seen = [{"id": check.id, "outcome": outcomes.get(check.id, "ok"), "found": '<b>found</b> & "quoted"'} for check in catalog.CHECKS]
    verdicts = diagnose.clean(diagnose.diagnose(seen))
    REMEDIES.complete(verdicts, host)
    return {"host": host, "outcome": diagnose.outcome(verdicts), "message": "", "verdicts": verdicts}


RESULTS = [result("gpu-%02d" % number, G02="bad", T04="bad") for number in range(12)] + [
    result("gpu-12"),
    {"host": "gpu-13", "outcome": "unreachable", "message": "No route to host", "verdicts": []},
]


def test_same_root_on_many_hosts_is_told_once():
    text = health_reports.table(RESULTS)
    assert text.count("FAIL G02") == 1 and "12 hosts" in text and "FAIL T04" not in text
    assert "UNREACHABLE  gpu-13" in text and all("gpu-%02d" % number in text for number in range(14))


def test_document_and_junit():
    document = json.loads(health_reports.render(RESULTS, RUN)["health.json"])
    assert [(root["id"], len(root["hosts"])) for root in document["roots"]] == [("G02", 12)]
    suites = ElementTree.fromstring(health_reports.junit(RESULTS, RUN).split("\n", 1)[1])
    assert len(suites) == 14 and suites[13][0].find("error").get("message") == "No route to host"
    cases = {case.get("name").split()[0]: case for case in suites[0]}
    assert len(cases) == len(catalog.CHECKS) and cases["G02"].find("failure") is not None and cases["A01"].find("skipped") is not None


def test_document_keeps_its_schema():
    schema = json.loads((pathlib.Path(__file__).parents[3] / "docs" / "health.schema.json").read_text(encoding="utf-8"))
    odd = [result("gpu-20", T01="bad", U03="not_applicable", A01="crash", G08="warn", K01="unknown"), dict(result("gpu-21", A01="unknown"), message="less")]
    document = json.loads(health_reports.render(RESULTS + odd, RUN)["health.json"])
    jsonschema.validate(document, schema)
    statuses = {verdict["status"] for host in document["hosts"] for verdict in host["verdicts"]}
    assert statuses == set(schema["$defs"]["verdict"]["properties"]["status"]["enum"])
    # every field that the schema tells is really there
    assert set(schema["$defs"]["verdict"]["required"]) <= set(document["hosts"][0]["verdicts"][0])


def test_reasons_for_not_knowing_are_told_once():
    seen = [{"id": identity, "outcome": "unknown", "found": "no kubectl"} for identity in ("G01", "G02")]
    results = [{"host": "gpu-%d" % number, "outcome": "unknown", "message": "", "verdicts": diagnose.clean(diagnose.diagnose(seen))} for number in range(9)]
    assert health_reports.unknowns(results) == ["UNKNOWN G01, G02  9 hosts (gpu-0, gpu-1, gpu-2, ...): no kubectl"]


def test_no_check_is_unknown_for_a_host_that_passed_it():
    results = [result("gpu-01", G01="unknown", G02="unknown"), result("gpu-02", G01="unknown"), result("gpu-03")]
    unknown = {(entry["host"], verdict["id"]) for entry in results for verdict in entry["verdicts"] if verdict["status"] == "unknown"}
    told = set()
    for line in health_reports.unknowns(results):
        checks, hosts = re.fullmatch(r"UNKNOWN ([\w, ]+)  ([\w, -]+): .*", line).groups()
        told |= {(host, check) for host in hosts.split(", ") for check in checks.split(", ")}
    assert told == unknown


def test_hosts_out_of_reach_are_told_once_with_what_to_do():
    down = [{"host": "gpu-2%d" % n, "outcome": "unreachable", "message": "ssh: connect to host 203.0.113.%d port 22: %s" % (n, why), "verdicts": []}
            for n, why in enumerate(["No route to host"] * 7 + ["Connection refused"])]  # fmt: skip
    causes = health_causes.causes(RESULTS + down, "ansible -i hosts.yml")
    assert [(cause.label, len(cause.hosts)) for cause in causes] == [("FAIL G02", 12), ("UNREACHABLE", 8), ("UNREACHABLE", 1)]
    text = health_reports.table(RESULTS + down, causes)
    assert text.count("the host does not answer") == 1 and "ansible -i hosts.yml all -l gpu-13,gpu-20" in text


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Failed to connect to the host via ssh: root@192.0.2.1: Permission denied (publickey).", "login"),
        ("Failed to connect to the host via ssh: Host key verification failed.", "host_key"),
        ("Failed to connect to the host via ssh: ssh: Could not resolve hostname gpu-7: Name or service not known", "name"),
        ("Failed to connect to the host via ssh: ssh: connect to host 192.0.2.1 port 22: Connection timed out", "silent"),
        ("Missing sudo password", "become"),
        ("Timeout (12s) waiting for privilege escalation prompt:", "prompt"),
        ("Failed to create temporary directory. In some cases, you may have been able to authenticate", "disk"),
        ("<script>", ""),
    ],
)
def test_why_a_host_is_out_of_reach(message, code):
    assert health_causes.of_host({"outcome": "unreachable", "message": message, "verdicts": []})[1] == code
