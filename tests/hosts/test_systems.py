"""Hosts that say they are another system: preflight accepts, warns or refuses, before anything is changed (long)."""

from __future__ import annotations

import os

import pytest

from tests import seen
from tests.conftest import ROOT
from tests.e2e.conftest import NAME, Testbed

RECORDED = ROOT / "tests/unit/host/os_release"
# what the host says it is: (what the output says, whether it can be onboarded)
NAMES = {"immutable": "/usr mounted read-only", "no-manager": "neither apt nor dnf", "container-without-systemd": "a container without systemd"}
SAID = {
    "ubuntu-26.04": ([], True),
    "rocky-9": ([], True),
    "rocky-10": ([], True),
    "pop-22.04": (["pop 22.04 is not in the support matrix: it is treated as ubuntu 22.04"], True),
    "oracle-9": (["ol 9.5 is not in the support matrix: it is treated as rhel 9"], True),
    "debian-11": (["operating system: expected one of debian 12", "found debian 11", "Upgrade the host to debian 12 or newer"], False),
    "debian-forky": (["found debian forky."], False),
    "fedora-44": (["found fedora 44"], False),
}


@pytest.fixture(scope="module")
def bed():
    """A gateway host and one worker, Debian 12."""
    found = Testbed()
    found.workers = (f"{NAME}-worker1",)
    if not os.environ.get("B9_KEEP"):
        found.do("deps")
        found.do("down")
    found.do("up", "--workers", "1")
    status, output = found.play("prepare_gateway.yml")
    assert status == 0, output
    found.sh(found.workers[0], "cp -n /usr/lib/os-release /root/os-release")
    yield found
    found.sh(found.workers[0], "cp /root/os-release /usr/lib/os-release")
    if not os.environ.get("B9_KEEP"):
        found.do("down")


@pytest.mark.parametrize("name", sorted(SAID))
def test_preflight_of_a_host_that_says_it_is(bed, request, name):
    what = "preflight, check mode of onboarding" if SAID[name][1] else "refusal"
    seen.say(request, (name.replace("-", " "), what, "Debian 12 with this system's os-release"))
    bed.sh(bed.workers[0], "cat > /usr/lib/os-release <<'END'\n" + (RECORDED / name).read_text() + "END\n")
    status, output = bed.play("onboard_worker.yml", "--check", "-l", bed.workers[0])
    text, (words, accepted) = " ".join(output.split()), SAID[name]
    assert (status == 0) is accepted and all(word in text for word in words), output


@pytest.mark.parametrize(
    ("prepare", "undo", "words"),
    [
        ("mount --bind /usr /usr && mount -o remount,bind,ro /usr", "umount -l /usr", ["/usr: expected a file system that can be written to"]),
        ("mv /usr/bin/apt-get /root/", "mv /root/apt-get /usr/bin/", ["package manager: expected apt, or dnf 4, found neither"]),
        (
            "mv /usr/bin/apt-get /root/; ln -s dnf5 /usr/bin/dnf; touch /usr/bin/dnf5",
            "mv /root/apt-get /usr/bin/; rm /usr/bin/dnf /usr/bin/dnf5",
            ["found dnf5", "what dnf5 would do"],
        ),
        ("mv /run/systemd/system /run/systemd/away", "mv /run/systemd/away /run/systemd/system", ["another first process, in a container (podman)"]),
    ],
    ids=["immutable", "no-manager", "dnf5", "container-without-systemd"],
)
def test_host_that_can_not_be_onboarded_is_told_why(bed, request, prepare, undo, words):
    name = request.node.callspec.id
    seen.say(request, (NAMES.get(name, name), "refusal by name", "Debian 12 that is made to look like it"))
    worker = bed.workers[0]
    bed.sh(worker, "cp /root/os-release /usr/lib/os-release; " + prepare)
    try:
        status, output = bed.play("onboard_worker.yml", "--check", "-l", worker)
    finally:
        bed.sh(worker, undo)
    text = " ".join(output.split())
    assert status != 0 and "nothing was changed" in text and all(word in text for word in words), output
