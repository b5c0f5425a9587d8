"""An AWX double that awx/configure.yml has configured. Fixtures for the end-to-end tests."""

from __future__ import annotations

import json
import os
import pathlib
import re
import secrets
import subprocess
import sys

import pytest

from tests.awx.collection import awx_collection
from tests.doubles.awx.awx_double import AwxDouble

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.executable).parent


class Awx:
    """The double, the secrets it was given, and what the playbook printed."""

    def __init__(self, directory, project):
        self.directory, self.project = pathlib.Path(directory), project
        self.gateway_token = "canary-gateway-" + secrets.token_hex(12)
        self.api_token = "canary-awx-" + secrets.token_hex(12)
        self.webhook_password = "canary-webhook-" + secrets.token_hex(12)
        self.key = "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary-key-%s\n-----END OPENSSH PRIVATE KEY-----\n" % secrets.token_hex(24)
        self.double = AwxDouble(project, self.api_token)
        self.url = self.double.start()
        self.output = ""
        for name, text in (("token", self.gateway_token), ("key", self.key), ("known_hosts", "gateway ssh-ed25519 AAAA\n")):
            (self.directory / name).touch(mode=0o600)
            (self.directory / name).write_text(text)
        self.settings = {
            "awx_project_url": "https://git.example.com/beta9/workers.git",
            "awx_project_branch": "0.1.0",
            "awx_ee_image": "registry.example.com/beta9-ee:0.1.0",
            "awx_gateway_url": "http://gateway.example.com:31994",
            "awx_gateway_ssh_host": "gateway.example.com",
            "awx_ssh_key_file": str(self.directory / "key"),
            "awx_known_hosts_file": str(self.directory / "known_hosts"),
            "awx_inventory_variables": {"beta9_connection": "autossh"},
            "awx_hosts_project": "hosts",
            "awx_hosts_project_url": "https://git.example.com/beta9/hosts.git",
            "awx_hosts_path": "hosts.yml",
            "awx_notification_type": "webhook",
            "awx_notification_configuration": {
                "url": "https://chat.example.com/hook",
                "http_method": "POST",
                "headers": {},
                "username": "beta9",
                "password": self.webhook_password,
                "disable_ssl_verification": False,
            },
        }

    def configure(self, *arguments, **settings):
        """Run awx/configure.yml as an admin would; return (exit status, output)."""
        path = self.directory / "settings.yml"
        path.write_text(json.dumps(dict(self.settings, **settings)))
        environment = {
            "PATH": "%s:%s" % (BIN, os.environ["PATH"]),
            "HOME": os.environ["HOME"],
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "CONTROLLER_VERIFY_SSL": "false",  # without it each of 300 requests reads the trust store, for plain HTTP
            "ANSIBLE_COLLECTIONS_PATH": "%s:%s" % (awx_collection(), ROOT / "collections"),
            "CONTROLLER_HOST": self.url,
            "CONTROLLER_OAUTH_TOKEN": self.api_token,
            "BETA9_TOKEN_FILE": str(self.directory / "token"),
        }
        command = [str(BIN / "ansible-playbook"), "awx/configure.yml", "-e", "@%s" % path, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
        self.output += done.stdout
        return done.returncode, done.stdout

    @staticmethod
    def changed(output):
        """Return the number of changes in a recap."""
        return int(re.search(r"localhost\s+: ok=\d+\s+changed=(\d+)", output).group(1))


def copy_project(target):
    """Copy what git tracks, links kept, as AWX's project update does."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True).stdout
    target.mkdir(parents=True)
    subprocess.run(["xargs", "-0", "cp", "--parents", "--no-dereference", "--target-directory", str(target)], cwd=ROOT, input=names, check=True)
    return target


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("awx") / "project")


@pytest.fixture(scope="session")
def awx(tmp_path_factory, project):
    """The double after the first run."""
    found = Awx(tmp_path_factory.mktemp("awx-settings"), project)
    status, output = found.configure("-vvv")
    assert status == 0, output[-6000:]
    found.first_output, found.first_writes = output, found.double.writes()
    yield found
    found.double.stop()
