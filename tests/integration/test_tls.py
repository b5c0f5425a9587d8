"""TLS is verified; a CA of one's own and a client certificate work; turning verification off is a choice."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import tunnel
from tests.conftest import ROOT
from tests.doubles.gateway.harness import GatewayHarness


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "ca.key", "-out", folder / "ca.pem", "-subj", "/CN=test CA", "-days", "2"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),  # Python 3.13 verifies strictly
    )
    for name in ("server", "client"):
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / (name + ".key"), "-out", folder / (name + ".csr"), "-subj", "/CN=" + name)
        openssl(
            "x509",
            "-req",
            "-in",
            folder / (name + ".csr"),
            "-CA",
            folder / "ca.pem",
            "-CAkey",
            folder / "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            folder / "ext",
            "-out",
            folder / (name + ".pem"),
        )
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["server-certificate", "client-certificate"])
def secure(request, pki, tmp_path_factory):
    tls = {"cert": str(pki / "server.pem"), "key": str(pki / "server.key")}
    if request.param:
        tls["client_ca"] = str(pki / "ca.pem")
    harness = GatewayHarness(tmp_path_factory.mktemp("tls"), tls=tls)
    harness.client = {"client_cert": str(pki / "client.pem"), "client_key": str(pki / "client.key")} if request.param else {}
    yield harness.start()
    harness.stop()


def test_own_ca(secure, pki, run_module):
    assert run_module("pool_info", gateway_url=secure.url, token=secure.admin_token, ca_path=str(pki / "ca.pem"), **secure.client)["pools"]


def test_unknown_ca_is_refused(secure, run_module):
    result = run_module("pool_info", gateway_url=secure.url, token=secure.admin_token, retries=0, **secure.client)
    assert result["failed"] and result["code"] == "tls_failed" and "ca_path" in result["remedy"]


def test_verification_can_be_turned_off_by_name(secure, run_module):
    assert run_module("pool_info", gateway_url=secure.url, token=secure.admin_token, validate_certs=False, **secure.client)["pools"]


def test_missing_client_certificate_is_refused(secure, pki, run_module):
    if not secure.client:
        pytest.skip("this gateway asks for no client certificate")
    assert run_module("pool_info", gateway_url=secure.url, token=secure.admin_token, ca_path=str(pki / "ca.pem"), retries=0)["failed"]


def agent_once(secure, **settings):
    """Run the agent until the gateway's first answer; return the process that ended."""
    values = {"gateway_scheme": "https", "gateway_host": "127.0.0.1", "gateway_port": secure.port, "machine_id": "0000000a"}
    values.update({"pool_name": "gpu", "private_ip": "10.0.0.7", "token": secure.token()}, **settings)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BETA9_")}
    environment.update({f"BETA9_{name.upper()}": str(value) for name, value in values.items()}, PYTHONPATH=str(ROOT / "agent_src"))
    command = [sys.executable, "-m", "beta9_agent", "--once"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_agent_shows_its_certificate_where_the_gateway_demands_one(secure, pki):
    done = agent_once(secure, ca_path=pki / "ca.pem", **secure.client)
    status = secure.state("0000000a").get("status")
    secure.reset()
    assert done.returncode == 0 and status == "ready", done.stderr
    if secure.client:
        without = agent_once(secure, ca_path=pki / "ca.pem")
        assert without.returncode == 1 and "demands one" in without.stderr and "beta9_client_cert" in without.stderr, without.stderr
        foreign = agent_once(secure, ca_path=pki / "ca.pem", client_cert=pki / "client.pem", client_key=pki / "server.key")
        assert foreign.returncode == 2 and "client_cert: expected a certificate, and its key" in foreign.stderr, foreign.stderr


def test_worker_s_modules_show_its_certificate(secure, pki, run_module):
    shown = {"ca_path": str(pki / "ca.pem"), **secure.client}
    result = run_module("gateway_reachable", url=secure.url, wait_seconds=0, **shown)
    assert result.get("reachable"), result
    context = engine.Context({"connection": "direct", "gateway_url": secure.url, **shown})
    for probe in (tunnel.health, tunnel.stability):
        assert probe(context)["outcome"] == "ok"


PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: beta9.workers.preflight, tasks_from: gateway.yml}
    - ansible.builtin.debug: {msg: "machines: {{ __preflight_machines.machines | default(__preflight_pools.msg) }}"}
"""


@pytest.mark.parametrize("shown", [True, False])
def test_role_variables_name_the_client_certificate(secure, pki, tmp_path, shown):
    if not secure.client:
        pytest.skip("this gateway asks for no client certificate")
    (tmp_path / "play.yml").write_text(PLAY)
    settings = {"beta9_gateway_url": secure.url, "beta9_admin_token_file": str(secure.admin_token_file), "beta9_ca_path": str(pki / "ca.pem")}
    if shown:
        settings.update({"beta9_" + name: value for name, value in secure.client.items()})
    command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(tmp_path / "play.yml"), "-e", json.dumps(settings)]
    environment = dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"), ANSIBLE_NOCOLOR="1")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert ("machines: []" in done.stdout) == shown and done.returncode == 0, done.stdout + done.stderr


def test_every_task_that_names_the_ca_names_the_client_certificate():
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        text = path.read_text(encoding="utf-8")
        assert text.count("{{ beta9_ca_path") == text.count("{{ beta9_client_cert") == text.count("{{ beta9_client_key"), path
