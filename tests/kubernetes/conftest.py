"""Clusters of a real Kubernetes API, one for each version. Left out, in one line, where its programs are neither built nor to be built."""

from __future__ import annotations

import json
import os
import pathlib

import jinja2
import pytest
from ansible.plugins.filter import core
from ansible_collections.beta9.workers.plugins.filter import valid
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api, installer

from tests.kubernetes import build
from tests.kubernetes.cluster import ADMIN, Cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pytest_configure(config):
    config.addinivalue_line("markers", "long: left out of `make test`; `make kubernetes` runs it")


@pytest.fixture(scope="session", params=[build.NEWEST, pytest.param(build.OLD, marks=pytest.mark.long)])
def cluster(request, tmp_path_factory):
    """A cluster of one version."""
    if not build.built(request.param):
        pytest.skip(build.missing() or f"Kubernetes {request.param} is not built yet: make kubernetes")
    with Cluster(request.param, tmp_path_factory.mktemp("kubernetes")) as made:
        yield made


def manifest(name: str, **variables) -> str:
    """Return a manifest of role k3s as its template makes it."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    for collection, module in (("ansible.builtin", core), ("beta9.workers", valid)):
        environment.filters.update({f"{collection}.{name}": call for name, call in module.FilterModule().filters().items()})
    return environment.from_string((ROOT / "roles/k3s/templates" / (name + ".yaml.j2")).read_text()).render(**variables)


@pytest.fixture
def host(cluster, tmp_path, monkeypatch):
    """This machine, as one whose k3s is the cluster: k3s' kubectl, its CA and address, and its directories are here."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(cluster.kubectl)
    config = cluster.kubeconfig("admin", ADMIN)
    (programs / "k3s").write_text(f'#!/bin/sh\n[ "$1" = kubectl ] && shift\nexec {cluster.kubectl} --kubeconfig={config} "$@"\n')
    (programs / "k3s").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(installer, "BINARY", str(programs / "k3s"))
    monkeypatch.setattr(installer, "STATE_DIR", str(tmp_path))
    monkeypatch.setattr(api, "API", cluster.url)
    monkeypatch.setattr(api, "CA", str(cluster.ca_path))
    monkeypatch.setattr(api, "KUBECTL_OPTIONS", ("--request-timeout=5s", f"--cache-dir={tmp_path}/cache"))
    return tmp_path


@pytest.fixture
def run_module(monkeypatch, capsys):
    """Return a function that runs a module's main() in this process and returns its result."""
    from ansible.module_utils import basic

    def run(module, **arguments):
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        capsys.readouterr()
        with pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    return run
