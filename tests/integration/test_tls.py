"""TLS is verified; a CA of one's own and a client certificate work; turning verification off is a choice."""

from __future__ import annotations

import subprocess

import pytest

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
