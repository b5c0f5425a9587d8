"""Reports: one line a root however many hosts, valid XML and JSON, nothing unescaped."""

from __future__ import annotations

import json
import pathlib
from xml.etree import ElementTree

import jsonschema
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, diagnose
from ansible_collections.beta9.workers.plugins.plugin_utils import health_remedies, health_reports

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


def test_page_is_self_contained_and_escaped():
    page = health_reports.page(RESULTS, RUN)
    assert "<b>found</b>" not in page and " src=" not in page and "<script" not in page
    assert page.count("link broken") == 12
