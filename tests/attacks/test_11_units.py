"""What a process that was taken over can do to its host, and a mirror of k3s that anybody on the network path may be."""

from __future__ import annotations

import json
import re

import pytest

UNITS = ("beta9-agent", "beta9-tunnel")


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_confined_and_works(ready, unit):
    for worker in ready.workers:
        score = ready.sh(worker, "systemd-analyze security --no-pager %s | tail -n 1" % unit)
        assert float(score.split("level for")[1].split(":")[1].split()[0]) <= 2.0, score
        assert ready.sh(worker, "systemctl is-active " + unit) == "active"


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_shares_no_memory_with_other_users(ready, unit):
    # as its own user and in its own view of the files, what it would write there
    script = (
        "p=$(systemctl show -P MainPID %s); for d in /dev/shm /dev/mqueue; do "
        'nsenter -t $p -m -S $(stat -c %%u /proc/$p) sh -c "ls $d; touch $d/x" 2>&1 && echo WRITTEN; done; true' % unit
    )
    for worker in ready.workers:
        assert "WRITTEN" not in ready.sh(worker, script)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_sees_what_it_needs(ready, unit):
    """No capabilities; a system that root itself can't write; no homes, no other processes, no devices but the driver's."""
    script = f"""
        p=$(systemctl show -P MainPID {unit}); u=$(stat -c %u /proc/$p); g=$(stat -c %g /proc/$p)
        echo user $u; grep -E '^Cap(Eff|Prm|Bnd)' /proc/$p/status
        systemctl show -p DevicePolicy,PrivateDevices,DeviceAllow {unit}
        touch /root/mark
        nsenter -t $p -m sh -c "touch /etc/x /usr/x; ls -A /root /home" 2>&1
        nsenter -t $p -m -S $u -G $g ls -d /proc/1 2>&1; true"""
    for worker in ready.workers:
        text = ready.sh(worker, script)
        assert "user 0" not in text.splitlines() and set(re.findall(r"Cap\w+:\s+(\w+)", text)) == {"0" * 16}, text
        driver = {"char-nvidia* rw"} if "PrivateDevices=no" in text else set()
        assert "DevicePolicy=closed" in text, text
        assert set(re.findall("DeviceAllow=(.+)", text)) == driver | {"char-rtc r"}, text  # the latter is ProtectClock's
        assert text.count("Read-only file system") == 2 and "mark" not in text, text
        assert "'/proc/1': No such file" in text, text


def test_reloaded_credentials_are_the_service_s_alone(ready):
    script = """
        systemctl reload beta9-agent; stat -c %u /proc/$(systemctl show -P MainPID beta9-agent)
        stat -c '%a %u' /run/beta9-agent/credentials/*"""
    for worker in ready.workers:
        user, *files = ready.sh(worker, script).splitlines()
        assert user != "0" and set(files) == {"400 " + user}, files


def test_k3s_from_a_mirror_without_tls_is_refused_unless_it_is_pinned_or_wished_for(ready, tmp_path):
    base = {"version": "v1.36.2+k3s1", "artifact_url": "http://127.0.0.1:9"}
    cases = {"bare": {}, "pinned": {"binary_sha256": "0" * 64}, "desired": {"insecure_mirror": True}}
    play = tmp_path / "play.yml"
    tasks = "".join("    - beta9.workers.k3s_preflight: %s\n      register: r_%s\n" % (json.dumps(dict(base, **more)), name) for name, more in cases.items())
    tasks += "".join('    - debug: {msg: \'%s {{ r_%s.problems | map(attribute="expected") | join(";") }} END\'}\n' % (name, name) for name in cases)
    play.write_text("- hosts: %s\n  gather_facts: false\n  become: true\n  tasks:\n%s" % (ready.workers[0], tasks))
    _status, output = ready.play(str(play))
    text = " ".join(output.split())
    said = {name: text[text.index("msg: " + name if "msg: " + name in text else name + " ") :].partition(" END")[0] for name in cases}
    assert "https, or a checksum" in said["bare"], output
    assert "https, or a checksum" not in said["pinned"] + said["desired"], output
