"""A container with the dnf and rpm of RHEL 9 (4.14, from Debian 12), and repositories of TEST DOUBLES on its loopback. The modules run in it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import ansible
import pytest

from tests.conftest import ROOT
from tests import seen
from tests.e2e import conftest
from tests.testbed import testbed

DRIVERS = ("580.9.1", "580.10.2", "590.1.1")
MODULES = "/src/collections/ansible_collections/beta9/workers/plugins/modules"
HOST = os.environ.get("B9_TESTBED", "b9t") + "-dnf"


def pytest_configure(config):
    conftest.pytest_configure(config)


@pytest.fixture(autouse=True)
def _seen(request):
    what = "sets of packages: install, hold, upgrade, downgrade, streams, wrong keys"
    seen.say(request, ("rhel 9", what, "dnf 4.14, rpm and libdnf themselves; packages are doubles"))


class Machine:
    """The container."""

    def sh(self, script, check=True):
        done = subprocess.run(["podman", "exec", "-i", HOST, "bash"], input=script, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def module(self, module, /, **params):
        """Run a module of the collection; return its result, of check mode with check=True."""
        check = params.pop("check", False)
        arguments = dict(params, _ansible_check_mode=check, _ansible_diff=True)
        done = subprocess.run(
            ["podman", "exec", "-i", "-e", "PYTHONPATH=/src/collections:/controller", HOST, "python3", "-B", f"{MODULES}/{module}.py"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip(), done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def versions(self):
        """Return {package: version} of what is installed of the driver."""
        rows = self.sh("rpm -qa --qf '%{NAME} %{VERSION}\\n' '*nvidia*' kernel*devel dkms").splitlines()
        return dict(row.split() for row in rows)


@pytest.fixture(scope="session")
def machine():
    testbed.build("dnf")
    runc = ["--runtime", "/usr/sbin/runc"] if pathlib.Path("/usr/sbin/runc").exists() else []
    subprocess.run(["podman", "rm", "--force", "--time", "0", "--ignore", HOST], check=True, capture_output=True)
    mounts = ["-v", f"{ROOT}:/src:ro", "-v", f"{pathlib.Path(ansible.__file__).resolve().parent}:/controller/ansible:ro"]
    limits = ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=32768:32768"]
    subprocess.run(
        ["podman", *runc, "run", "--detach", "--name", HOST, "--network", "none", *limits, *mounts, testbed.image_tag("dnf"), "sleep", "infinity"],
        check=True,
        capture_output=True,
    )
    found = Machine()
    found.sh("python3 /src/tests/doubles/rpm/build_repository.py /srv/rpm " + " ".join("--driver " + version for version in DRIVERS))
    # Debian keeps root's database of rpm in root's home, an EL system here
    found.sh("mkdir -p /etc/rpm; echo '%_dbpath /var/lib/rpm' > /etc/rpm/macros; cp -a /etc/dnf /root/dnf")
    yield found
    if not os.environ.get("B9_KEEP"):
        subprocess.run(["podman", "rm", "--force", "--time", "0", HOST], check=True, capture_output=True)


@pytest.fixture
def host(machine):
    """The container as it was: no package, no repository but the distribution's."""
    machine.sh(
        """rm -rf /var/lib/rpm /etc/dnf /etc/yum.repos.d /etc/pki /var/lib/dnf /var/cache/dnf /var/lib/beta9
        mkdir -p /var/lib/rpm /etc/yum.repos.d; rpm --initdb; cp -a /root/dnf /etc/dnf
        printf '[main]\\nenabled=0\\n' > /etc/dnf/plugins/local.conf
        echo 9 > /etc/dnf/vars/releasever
        printf '[main]\\ngpgcheck=True\\ninstallonly_limit=3\\nclean_requirements_on_remove=True\\nbest=True\\nskip_if_unavailable=False\\n' > /etc/dnf/dnf.conf
        echo module_platform_id=platform:el9 >> /etc/dnf/dnf.conf
        printf '[base]\\nname=base\\nbaseurl=http://127.0.0.1:8000/base\\ngpgcheck=0\\n' > /etc/yum.repos.d/base.repo
        pgrep -f http.server >/dev/null || (cd /srv/rpm && exec setsid python3 -m http.server --bind 127.0.0.1 8000 >/dev/null 2>&1) &
        for _ in $(seq 50); do (: < /dev/tcp/127.0.0.1/8000) 2>/dev/null && break; sleep 0.1; done"""
    )
    machine.fingerprint = machine.sh("cat /srv/rpm/fingerprint")
    return machine


@pytest.fixture
def driver(host):
    """A host that knows the repository of the driver, with module streams."""
    assert repository(host)["changed"]
    return host


def repository(host, name="driver", **params):
    """Let the host use one of the repositories."""
    url = "http://127.0.0.1:8000"
    desired = {"name": "beta9-nvidia-" + name, "url": f"{url}/{name}/", "signer_url": f"{url}/key.asc", "fingerprint": host.fingerprint}
    return host.module("host_repository", **dict(desired, manager="dnf", **params))
