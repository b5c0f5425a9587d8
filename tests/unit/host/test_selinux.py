"""What is made of the kernel's answers about SELinux. The kernel itself: tests/hosts/test_selinux.py."""

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.host import selinux
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import sshd_effective

SESSION = "system_u:system_r:sshd_session_t:s0-s0:c0.c1023"
UNRESERVED = "system_u:object_r:unreserved_port_t:s0"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """selinuxfs as files; what it decides is denied = {(permission, port type)}."""
    denied = {("name_bind", "unreserved_port_t"), ("name_connect", "unreserved_port_t")}
    monkeypatch.setattr(selinux, "ROOT", str(tmp_path))
    monkeypatch.setattr(
        selinux, "allows", lambda _source, target, permission: (permission, selinux.type_of(target)) not in denied
    )
    rules = [(22, 22, "system_u:object_r:ssh_port_t:s0"), (1024, 32767, UNRESERVED), (6443, 6443, "first:wins:no_t")]
    monkeypatch.setattr(selinux, "_port_rules", lambda _path: rules)
    monkeypatch.setattr(selinux, "OUTGOING_PORTS", str(tmp_path / "ports"))
    (tmp_path / "ports").write_text("30000\t60999\n")
    (tmp_path / "enforce").write_text("1")
    (tmp_path / "initial_contexts").mkdir()
    (tmp_path / "initial_contexts/port").write_text("system_u:object_r:port_t:s0\0")
    return tmp_path


def test_the_first_rule_with_a_port_is_its_type(kernel):
    assert selinux.port_contexts([22, 6443, 50000]) == {
        22: "system_u:object_r:ssh_port_t:s0",
        6443: UNRESERVED,
        50000: "system_u:object_r:port_t:s0",
    }


def test_refusals_name_domain_permission_and_type(kernel):
    found = selinux.refusals(
        SESSION, {"name_bind": [6443, 6444, 22, 31994], "name_connect": [31994]}
    )  # the kernel lets any domain bind 31994
    assert found == [
        selinux.Refusal("sshd_session_t", "name_bind", "unreserved_port_t", (6443, 6444)),
        selinux.Refusal("sshd_session_t", "name_connect", "unreserved_port_t", (31994,)),
    ]
    assert selinux.remedy(found[1:]) == (
        "echo '(allow sshd_session_t unreserved_port_t (tcp_socket (name_connect)))' > /root/beta9-tunnel.cil && semodule -i /root/beta9-tunnel.cil"
    )


@pytest.mark.parametrize("enforce", ["0", "", None])
def test_nothing_is_refused_where_selinux_does_not_enforce(kernel, enforce):
    (kernel / "enforce").unlink()
    if enforce is not None:
        (kernel / "enforce").write_text(enforce)
    assert selinux.refusals(SESSION, {"name_bind": [6443]}) == []


@pytest.mark.parametrize("context", ["", "kernel", "a:b:c'; reboot #:s0"])
def test_a_context_that_is_none_is_not_judged(kernel, context):
    assert selinux.refusals(context, {"name_bind": [6443]}) == []


def test_what_can_not_be_read_is_no_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(selinux, "ROOT", str(tmp_path))
    (tmp_path / "enforce").write_text("1")
    (tmp_path / "policy").write_bytes(b"no policy")
    (tmp_path / "initial_contexts").mkdir()
    (tmp_path / "initial_contexts/port").write_text("system_u:object_r:port_t:s0")
    assert selinux.port_contexts([6443]) == {} and selinux.allows(SESSION, UNRESERVED, "name_bind") is True
    for name, text in (("class/tcp_socket/index", "3"), ("class/tcp_socket/perms/name_bind", "20"), ("access", "")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert selinux.allows(SESSION, UNRESERVED, "name_bind") is True


def test_the_gateway_hosts_problem_has_the_command(monkeypatch):
    refused = [selinux.Refusal("sshd_t", "name_bind", "unreserved_port_t", (6443,))]
    monkeypatch.setattr(sshd_effective, "_session", lambda _user: 1)
    monkeypatch.setattr(selinux, "enforcing", lambda: True)
    monkeypatch.setattr(
        selinux,
        "refusals",
        lambda _context, wanted: refused if wanted == {"name_bind": [6443], "name_connect": [31994]} else [],
    )
    (problem,) = sshd_effective.refused_by_selinux("root", [6443], ["localhost:31994"])
    assert str(problem) == (
        "SELinux: expected sshd's sessions (sshd_t) to be allowed what a tunnel does, found its policy refuses name_bind on TCP 6443 (unreserved_port_t). "
        f"Allow just this: {selinux.remedy(refused)}"
    )
