"""A mode of connection is a row of one table, and a role where something has to be set up."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from ansible.errors import AnsibleLookupError

from ansible_collections.beta9.workers.plugins.lookup import connection
from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog
from tests.conftest import ROOT

NAMES = "|".join(connections.BY_NAME)
# A mode as a value: in quotes, marked up, after connection=, or a scalar, key or item of YAML
NAMED = re.compile(
    rf"""(['"`])({NAMES})\1|\b[VC]\(({NAMES})\)|connection=({NAMES})\b|\b({NAMES})\b[, ]+(?:or )?({NAMES})\b
    |^\s*(?:-\s+|[\w.]+:\s+)?({NAMES})\s*(?:\#.*)?$|^\s*({NAMES}):|[\[,]\s*({NAMES})\s*(?=[,\]])""",
    re.X,
)
# The programs and packages of the same name
PROGRAMS = re.compile(
    r"""run\("tailscale"|which\("tailscale"\)|C\(tailscale\)\sthrough|import\ssecretfiles,.*|"ssh",\s"autossh"|or\s["']autossh["'][)}]
    |autossh,\sopenssh-client|\sname:\stailscale$|packages:\s\[tailscale\]|'autossh'(?=[],])|"autossh",\s"ssh".*""",
    re.X,
)
MOST = 8


def names_a_mode(line: str) -> bool:
    """Say whether a line names a mode. direct is an everyday word: it counts beside a connection or another mode."""
    words = [found.group() for found in NAMED.finditer(PROGRAMS.sub("", line))]
    return any("direct" not in word or re.search("connection|Mode|autossh|tailscale", line) for word in words)


def test_few_files_name_a_mode():
    """Of the product that people write: not what tools/generate.py writes whole."""
    found = set()
    for folder in ("roles", "plugins", "playbooks", "agent_src"):
        for path in (ROOT / folder).rglob("*"):
            text = path.read_text() if path.suffix in (".py", ".yml", ".j2") else ""
            if "tools/generate.py" not in text and any(map(names_a_mode, text.splitlines())):
                found.add(str(path.relative_to(ROOT)))
    assert len(found) <= MOST and "plugins/module_utils/connections.py" in found, found


@pytest.mark.parametrize(
    "line",
    [
        "when: preflight_connection == 'autossh'",
        "  tailscale: [100.64.0.0/10]",
        'modes: tuple = ("autossh",)',
        "default: tailscale",
        "# with V(autossh)",
        "-e beta9_connection=direct",
        "when: k3s_connection != 'direct'",
    ],
)
def test_a_named_mode_is_found(line):
    assert names_a_mode(line)


@pytest.mark.parametrize("mode", connections.MODES, ids=lambda mode: mode.name)
def test_a_mode_has_what_the_page_asks_for(mode):
    guide = (ROOT / "docs/guides/connection-modes.md").read_text()
    assert f"\n## {mode.name}\n" in guide and f"| `{mode.name}`" in guide
    if mode.role:
        tasks = ROOT / "roles" / mode.role.removeprefix("beta9.workers.") / "tasks"
        assert mode.left and all((tasks / f"{name}.yml").exists() for name in ("main", "remove", "variables"))
        assert (tasks / "gateway_host.yml").exists() == mode.joins_gateway_host
        assert any(check.builds_on == mode.gives for check in catalog.CHECKS)
    else:
        assert not mode.left and not mode.gives


def test_checks_build_on_what_a_mode_gives():
    assert {check.builds_on for check in catalog.CHECKS} == {"", *(mode.gives for mode in connections.MODES)}


HOSTS = {
    "tunnel": {
        "autossh_gateway_address": "192.0.2.1",
        "autossh_peer": {"listen_address": "127.77.0.9"},
        "autossh_forwards": [{"local_port": "{{ 1990 + 5 }}", "target": "localhost:31994"}],
    },
    "tailnet": {
        "beta9_connection": "tailscale",
        "tailscale_worker_gateway_url": "http://100.64.0.1:31994",
        "tailscale_registered_hostname": "gpu-1",
        "tailscale_node": {"dns_name": "gpu-1.tail.net", "address": "100.64.0.2"},
    },
    "address": {"beta9_connection": "tailscale", "tailscale_gateway_mode": "direct"},
    "plain": {
        "beta9_connection": "direct",
        "beta9_gateway_url": "http://gate.example.com:31994",
        "ansible_host": "192.0.2.7",
    },
    "bare": {"beta9_connection": "direct"},
    "by_hand": {
        "beta9_hostname": "gpu.example.com",
        "beta9_worker_gateway_url": "https://in.example.com",
        "beta9_connection": "direct",
    },
    "pigeon": {"beta9_connection": "pigeon"},
    "flock": {"beta9_connection": ["autossh"]},
    "new": {"beta9_connection": "mesh", "mesh_url": "http://10.9.0.1:1994"},
}
FIELDS = {
    "name": "",
    "gateway_url": "-",
    "hostname": "-",
    "address": "-",
    "stored_as": "",
    "tunnel_port": "",
    "api_networks": "",
    "names": "",
    "role": "",
    "resolves": "-",
}
ROW = '    Mode("mesh", role="beta9.workers.mesh", left="/etc/mesh", gives="mesh", gateway_url=lambda read: read("mesh_url")),\n'


def test_values_of_every_mode_and_of_a_new_one(tmp_path):
    """By Ansible itself, in a copy of the collection that has one row more."""
    copy = tmp_path / "ansible_collections" / "beta9" / "workers"
    for name in ("plugins", "meta"):
        shutil.copytree(ROOT / name, copy / name)
    shutil.copy(ROOT / "galaxy.yml", copy)
    table = copy / "plugins/module_utils/connections.py"
    table.write_text(table.read_text().replace('    Mode("direct"),\n', '    Mode("direct"),\n' + ROW))
    asked = {
        field: "{{ lookup('beta9.workers.connection', '%s'%s) }}" % (field, default and ", default='%s'" % default)
        for field, default in FIELDS.items()
    }
    asked["of another"] = "{{ lookup('beta9.workers.connection', 'hostname', host='plain') }}"
    play = [{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": asked}}]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"hosts": HOSTS, "vars": {"ansible_connection": "local"}}})
    )
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(tmp_path), ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    command = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.yml", "play.yml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = {
        name: json.loads(text)["msg"] for name, text in re.findall(r"ok: \[(\w+)\] => (\{.*?\n\})", done.stdout, re.S)
    }
    for fields in told.values():
        fields["tunnel_port"] = int(fields["tunnel_port"])  # a text with the templates of ansible-core before 2.19
    assert told["tunnel"] == {
        "name": "autossh",
        "gateway_url": "http://127.0.0.1:1995",
        "hostname": "127.77.0.9",
        "address": "127.77.0.9",
        "stored_as": "direct",
        "tunnel_port": 1995,
        "api_networks": [],
        "names": [],
        "role": "beta9.workers.autossh",
        "resolves": "192.0.2.1",
        "of another": "192.0.2.7",
    }
    assert told["tailnet"] == dict(
        told["tunnel"],
        name="tailscale",
        gateway_url="http://100.64.0.1:31994",
        hostname="gpu-1",
        address="100.64.0.2",
        stored_as="tailnet",
        tunnel_port=0,
        api_networks=["100.64.0.0/10", "fd7a:115c:a1e0::/48"],
        names=["gpu-1.tail.net", "100.64.0.2"],
        role="beta9.workers.tailscale",
        resolves="controlplane.tailscale.com",
    )
    plain = dict(
        told["tunnel"],
        name="direct",
        hostname="192.0.2.7",
        address="",
        tunnel_port=0,
        api_networks=["0.0.0.0/0", "::/0"],
        role="",
        resolves="",
    )
    assert told["plain"] == dict(plain, gateway_url="http://gate.example.com:31994", resolves="gate.example.com")
    assert told["by_hand"] == dict(
        plain, gateway_url="https://in.example.com", hostname="gpu.example.com", stored_as="", resolves="in.example.com"
    )
    assert told["bare"]["hostname"] == "bare" and told["bare"]["gateway_url"] == "-"
    assert told["address"]["stored_as"] == "direct" and told["address"]["hostname"] == "-"
    assert told["pigeon"] == dict(plain, name="pigeon", gateway_url="-", hostname="-")
    assert told["flock"]["gateway_url"] == "-" and told["flock"]["role"] == ""
    assert told["new"] == dict(
        plain, name="mesh", gateway_url="http://10.9.0.1:1994", hostname="new", role="beta9.workers.mesh"
    )


@pytest.mark.parametrize(
    ("mode", "field", "expected"),
    [
        (
            "autossh",
            "hostname",
            "gpu-1: expected hostname from role beta9.workers.autossh, which has to run before, found nothing",
        ),
        ("direct", "gateway_url", "gpu-1: expected gateway_url from beta9_gateway_url, found nothing"),
        ("pigeon", "gateway_url", "expected one of autossh, tailscale, direct, found pigeon"),
    ],
)
def test_what_is_missing_is_said(mode, field, expected):
    lookup = connection.LookupModule()
    lookup.set_options = lambda **_: None
    lookup.get_option = {"mode": mode}.get
    with pytest.raises(AnsibleLookupError, match=expected):
        lookup.run([field], {"inventory_hostname": "gpu-1"})


@pytest.mark.parametrize(
    ("host", "field", "expected"),
    [
        ("by_hand", "gateway_url", "https://in.example.com"),  # before what the mode knows
        ("by_hand", "hostname", "gpu.example.com"),
        ("by_hand", "stored_as", ""),
        ("address", "stored_as", "direct"),
        ("tailnet", "stored_as", "tailnet"),
        ("plain", "gateway_url", "http://gate.example.com:31994"),
        ("pigeon", "gateway_url", None),  # a mode that does not exist knows nothing
        ("pigeon", "hostname", None),
    ],
)
def test_what_the_inventory_gives_goes_first(host, field, expected):
    variables = dict(HOSTS[host], beta9_gateway_url="http://gate.example.com:31994")
    assert connections.value(variables["beta9_connection"], field, variables.get) == expected


def test_lookup_reads_the_named_host():
    lookup = connection.LookupModule()
    lookup.set_options = lambda **_: None
    hosts = {"gpu-2": dict(HOSTS["plain"], beta9_gateway_url="http://other.example.com:1")}
    for options, expected in (
        ({"mode": "direct", "host": "gpu-2"}, ["http://other.example.com:1"]),
        ({"mode": "pigeon", "host": "gpu-2", "default": "none"}, ["none"]),
    ):
        lookup.get_option = options.get
        assert lookup.run(["gateway_url"], {"hostvars": hosts, "inventory_hostname": "gpu-1"}) == expected


@pytest.mark.parametrize("port", [None, "x", "19941994", "$(:)", 0.5])
def test_a_mistyped_port_of_the_tunnel_is_the_usual_one(port):
    assert connections.forward({"autossh_forwards": [{"local_port": port}]}.get) == connections.FORWARD
    assert connections.forward({"autossh_forwards": port}.get) == connections.FORWARD
