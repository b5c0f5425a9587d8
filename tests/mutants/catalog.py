"""Mutants made by hand: in each, one small mistake that a person could make and that would hurt somebody."""

from __future__ import annotations

from typing import NamedTuple

UTILS, HEALTH, MODULES, ACTION = (
    "plugins/module_utils/",
    "plugins/module_utils/health/",
    "plugins/modules/",
    "plugins/action/",
)
AGENT = "agent_src/beta9_agent/"


class Mistake(NamedTuple):
    """file: where. was: text that occurs there exactly once. now: what it becomes."""

    file: str
    was: str
    now: str


# {file: ((was, now), ...)}
PROTOCOL = {
    UTILS + "gateway/protocol.py": (
        ("if int(text) > 64:", "if int(text) >= 64:"),
        ("return str(int(text))", "return text"),
        (
            'if not isinstance(text, str) or not re.match(pattern + r"\\Z", text):',
            "if not isinstance(text, str) or not re.match(pattern, text):",
        ),
        ("if len(text) > 253:", "if len(text) > 63:"),
        ('if not re.match(r"[\\x21-\\x7e]+\\Z", text):', 'if not re.match(r"[\\x21-\\x7e]+", text):'),
        ('f"something else ({len(text)} characters, not shown)"', "text"),
        ('(1024 if text.endswith("Gi") else 1)', '(1000 if text.endswith("Gi") else 1)'),
        (
            "if isinstance(value, bool) or not isinstance(value, int) or value < 0:",
            "if isinstance(value, bool) or not isinstance(value, int):",
        ),
        (
            "or not isinstance(value, (int, float)) or not value >= 0:",
            "or not isinstance(value, (int, float)) or value < 0:",
        ),
        ("            value = float(value)\n", ""),
        ('if re.search(r"\\\\u[dD][89a-fA-F]", text):', "if False:"),
        (
            '    except RecursionError:\n        raise ValueError("nested without end") from None\n    return body',
            "    finally:\n        pass\n    return body",
        ),
        ("found = list(dict.fromkeys(dropped))", "found = list(dropped)"),
        ('dropped.append(UNPRINTABLE.sub("?", str(error))[:200])', "dropped.append(str(error))"),
        ("return number if abs(number) < 2**63 else None", "return number"),
        ("return number if abs(number) < 2.0**63 else None", "return number"),
        (
            'status=_taken(_status, state.get("status"), None, "registered"),',
            'status=_taken(_status, state.get("status"), None, "ready"),',
        ),
        ('if not found["id"] or not found["pool"] and pool:', 'if not found["id"]:'),
        ('"created": _number(entry.get("created")),', '"created": None,'),
        ('"machine_id": _taken(machine_id, entry.get("machineId"), dropped)}', '"machine_id": entry.get("machineId")}'),
        ('containers=len(_list(entry.get("activeContainers")))', "containers=0"),
        ('for key in ("minFreeGpu", "minFreeCpu", "minFreeMemory")', 'for key in ("minFreeGpu",)'),
        ("salt = salt or os.urandom(16).hex()", 'salt = salt or "00"'),
        (
            'return hmac.compare_digest(token_mark(key, mark.partition(":")[0]).encode(), mark.encode())',
            "return bool(mark)",
        ),
        ('entry.get("active") is True\n            and entry', "entry"),
        ('            and entry.get("reusable") is True\n', ""),
        ('            and entry.get("tokenType") == "machine"\n', ""),
        ('kept = state.get("registration_token") or state.get("token")', 'kept = state.get("registration_token")'),
        ("for mark in marks) if kept else None", "for mark in marks) if kept else False"),
        ('return identity if re.match(r"[A-Za-z0-9-]{1,64}\\Z", identity) else None', "return identity"),
        ('if not (isinstance(body, dict) and body.get("ok") is False):', "if True:"),
        ("if url_path == HEALTH_PATH and status == 500:", "if status == 500:"),
        ('if status == 404 and url_path == MACHINE_API + "/keepalive":', "if status == 404:"),
        (
            'return UNPRINTABLE.sub("", " ".join(": ".join(words).split()))[:300]',
            'return " ".join(": ".join(words).split())',
        ),
    ),
}
GATEWAY = {
    UTILS + "exchange.py": (
        ("if isinstance(reason, socket.gaierror):", "if False:"),
        ('    if deadline.over:\n        raise TimeoutError(f"timed out after {seconds:g} s")\n    return answer', "    return answer"),
        ("response.read(most_bytes + 1)", "response.read(most_bytes)"),
        ("urllib.request.ProxyHandler(None if proxied else {})", "urllib.request.ProxyHandler(None)"),
        ("                deadline._sockets.append(self.sock)\n", ""),
    ),
    UTILS + "gateway/api.py": (
        ("if self._token and path != protocol.HEALTH_PATH:", "if self._token:"),
        ("            pause *= 2\n", ""),
        ("time.sleep(random.uniform(pause / 2, pause))", "time.sleep(pause)"),
        ("if left <= 0 or not error.problem.retryable:", "if left <= 0:"),
        ("            left -= 1\n", ""),
        (
            "                    if error.problem.status == 401:\n",
            "                    if error.problem.status == 403:\n",
        ),
        ("if len(raw) > exchange.MAX_BODY_BYTES:", "if False:"),
        ('for worker in found if worker["machine_id"] == machine_id]', "for worker in found]"),
        ('{"pool_name": protocol.pool_name(pool)}, retries=0)', '{"pool_name": protocol.pool_name(pool)})'),
        ("        self.list_machines(protocol.pool_name(pool))\n", ""),
        (
            "        if identity:\n            self.delete_token(identity)",
            "        if not identity:\n            self.delete_token(identity)",
        ),
        (
            "        if not found:\n            self._be_permitted()",
            "        if False:\n            self._be_permitted()",
        ),
        ("if error.problem.code != protocol.POOL_STATE_MISSING.code:", "if False:"),
        ("return path.startswith(protocol.GATEWAY_API) and not loopback", "return not loopback"),
        ("machines._token = key", "pass"),
        (
            "        if not key:\n            return None\n        machines",
            "        if not key:\n            return False\n        machines",
        ),
        ("return error.problem.status == 501", "return True"),
        ("            or parts.username\n", ""),
        ("context.verify_mode = ssl.CERT_NONE", "pass"),
        ("    if not validate_certs:\n", "    if validate_certs:\n"),
        (
            'token = params.get("token") or (read_token(params["token_file"]) if params.get("token_file") else None)',
            'token = (read_token(params["token_file"]) if params.get("token_file") else None) or params.get("token")',
        ),
        ('in ("machine_not_found", "route_missing") else', 'in ("machine_not_found",) else'),
        ("            if status < 300:\n", "            if status < 600:\n"),
    ),
    UTILS + "gateway/machine_runner.py": (
        ("if plan.apply and not check_mode:", "if plan.apply:"),
        ("return self.apply is not None and self.before != self.after", "return self.apply is not None"),
        (
            'if not params["prove_owner"] or params["confirmed"] or not machine:',
            'if not params["prove_owner"] or not machine:',
        ),
        ('if owned is None and machine["status"] != "ready":', "if owned is None:"),
        ('    if owned:\n        return ""', '    if owned is not None:\n        return ""'),
        ("    if client.dropped:\n", "    if False:\n"),
    ),
    UTILS + "tunnel/peers.py": (),
    UTILS + "tunnel/messages.py": (
        ('    ("key_refused", "Permission denied (publickey"),\n    ("key_refused", "Permission denied ("),\n', ""),
        ('    ("port_taken", "Address already in use"),\n', ""),
    ),
}
AGENT_MISTAKES = {
    AGENT + "lifecycle.py": (
        ('    "internal_error": RETRY,', '    "internal_error": SLOW,'),
        ('    "token_unknown": CREDENTIAL,', '    "token_unknown": SLOW,'),
        (
            'self._accept_ttl(state)\n        self.action, self.due = "keepalive", now',
            'self.action, self.due = "keepalive", now',
        ),
        (
            "self._accept_ttl(state)\n        self.status, self.problem, self.failures, self._refound",
            "self.status, self.problem, self.failures, self._refound",
        ),
        (
            'self.problem, self.failures, self._refound = "ready", None, 0, 0',
            'self.problem, self.failures, self._refound = "ready", None, 0, self._refound',
        ),
        (
            'self.problem, self.failures, self._refound = "ready", None, 0, 0',
            'self.problem, self.failures, self._refound = "ready", None, self.failures, 0',
        ),
        ("self.told_last = state.last_keepalive", "pass"),
        ("            self._refound += 1  # once", "            self._refound += 0  # once"),
        (
            '        if reaction == REGISTER:\n            self.action = "register"\n        self.status',
            "        self.status",
        ),
        ("self.failures += 1", "self.failures = 1"),
        ("self._asked_for = True", "pass"),
        ('        self._asked_for = False\n        self.status = "registered"', '        self.status = "registered"'),
        ("slow = min(60.0, self.interval)", "slow = max(60.0, self.interval)"),
        ("return self.rng.uniform(slow / 2, slow)", "return slow"),
        ("longest = min(self.ttl / 4.0, self.interval + 5.0)", "longest = self.interval + 5.0"),
        ("2.0 ** min(self.failures - 1, 16)", "2.0 ** min(self.failures, 16)"),
        ("(RETRY if problem.retryable else SLOW)", "RETRY"),
        ("maxlen=8", "maxlen=1"),
    ),
    AGENT + "gpus.py": (
        ("return mode is not None and mode[0] == 1", "return mode is not None"),
        ("return mode is not None and mode[0] == 1", "return mode is not None and mode[1] == 1"),
        ("        if self.wanted == ():\n            return Reading()\n", ""),
        ("return sum(unit.free and int(", "return sum(int("),
        ("not in unfit for unit in self.units)", "not in () for unit in self.units)"),
        (
            "        if self._last is None:\n            return Reading(trouble=trouble)\n",
            "        if True:\n            return Reading(trouble=trouble)\n",
        ),
        ("            if self._session is None:\n", "            if True:\n"),
        ("        if troubles:\n            self._end(pynvml)\n", ""),
        (
            "        except pynvml.NVMLError as error:\n            self._end(pynvml)\n",
            "        except pynvml.NVMLError as error:\n",
        ),
        ("in (NOT_SUPPORTED, FUNCTION_NOT_FOUND, NOT_FOUND, INVALID_ARGUMENT):", "is not None:"),
        (
            "isinstance(error, pynvml.NVMLError_LibraryNotFound) and not os.path.exists",
            "isinstance(error, pynvml.NVMLError_LibraryNotFound) or not os.path.exists",
        ),
        ("        self._asked = False\n        self._last, self._last_moment", "        self._last, self._last_moment"),
    ),
    AGENT + "metrics.py": (
        (
            "self.cpu_millicores = min(cpu, protocol.cpu_millicores(max_cpu)) if max_cpu else cpu",
            "self.cpu_millicores = protocol.cpu_millicores(max_cpu) if max_cpu else cpu",
        ),
        ("psutil.virtual_memory().total // 2**20", "psutil.virtual_memory().total // 10**6"),
        ("min(memory, protocol.memory_mib(max_memory)) if max_memory else memory", "memory"),
        (
            '"total_disk_free_bytes": disk.f_bavail * disk.f_frsize,',
            '"total_disk_free_bytes": disk.f_bfree * disk.f_frsize,',
        ),
        (
            '"total_disk_space_bytes": disk.f_blocks * disk.f_frsize,',
            '"total_disk_space_bytes": disk.f_blocks * disk.f_bsize * 2,',
        ),
        (
            "except FileNotFoundError:",
            "except OSError:",
        ),
        ('"free_gpu_count": self.gpu.free,', '"free_gpu_count": self.gpu.count,'),
        ("        self.troubles.pop(name, None)\n", ""),
    ),
    AGENT + "agent.py": (
        ("state.replace(self.config.registration_file, fingerprint, 0o600)", "None"),
        ("fingerprint, 0o600)", "fingerprint, 0o644)"),
        ('before = "" if config.once else state.remembered', "before = state.remembered"),
        ("longest = min(SLICE_SECONDS, watchdog / 3) if watchdog else SLICE_SECONDS", "longest = SLICE_SECONDS"),
        ("            longest = min(longest, 1.0)\n", "            longest = min(longest, 60.0)\n"),
        ("        self._registered = bodies.Registered(self.machine)\n        fingerprint", "        fingerprint"),
        ("                self._credentials = found\n", ""),
        ("            if found != self._credentials:\n", "            if found == self._credentials:\n"),
        (
            'if self.config.once and (self.life.status == "ready" or self.life.problem):',
            'if self.config.once and self.life.status == "ready":',
        ),
        (
            'code = "credential_unreadable" if error.field in ("token", "k3s_token") else "invalid_field"',
            'code = "invalid_field"',
        ),
        ("if abs(passed.set_seconds) > JUMP_SECONDS:", "if passed.set_seconds > JUMP_SECONDS:"),
        ("if passed.suspended_seconds > 1.0:", "if passed.suspended_seconds < 1.0:"),
        ("        self.history.reloaded(refused)\n", ""),
        ("        self.history.record_problem(problem)\n", ""),
        ("            self._publisher.alive(self.snapshot())\n", ""),
        ("if (shot.status, shot.problem and shot.problem.code) != before:", "if shot.status:"),
    ),
    AGENT + "bodies.py": (
        ("token=config.cluster_token() or config.machine_token(),", "token=config.machine_token(),"),
        ("state.fingerprint([payload, config.gateway_url], ", "state.fingerprint([payload], "),
        ("changed = machine.gpu.stale_seconds is None and machine.capacity()", "changed = machine.capacity()"),
        ("        return self._differs > 1\n", "        return self._differs > 0\n"),
        (
            "self._differs = self._differs + 1 if changed else 0",
            "self._differs = self._differs + 1 if changed else self._differs",
        ),
    ),
    AGENT + "history.py": (
        (
            'self.sent[what] = dict(payload, token="(not shown)") if "token" in payload else payload',
            "self.sent[what] = payload",
        ),
        ("while len(self.problems) > KEPT_PROBLEMS:", "while len(self.problems) > 50:"),
        ("self.problems.pop(problem.code, ", "self.problems.get(problem.code, "),
        ("        self.reload_error = refused\n", "        self.reload_error = refused or self.reload_error\n"),
        ("        self.reloads += 1\n", ""),
    ),
    AGENT + "clocks.py": (
        ("        self._wall, self._suspended = wall, suspended\n", ""),
        ("return time.clock_gettime(time.CLOCK_BOOTTIME)", "return time.monotonic()"),
        ("Passed(suspended - self._suspended, wall - self._wall)", "Passed(wall - self._wall, suspended - self._suspended)"),
    ),
    AGENT + "journal.py": (
        ("late_seconds > max(1.0, interval_seconds / 4)", "late_seconds > 1000000"),
        ('if self._changes.changed("behind", behind) and behind:', "if behind:"),
        ("        self._gpu_findings = set(found)\n", ""),
        ("passing = problem.retryable or ", "passing = "),
        ('problem.retryable or shot.status == "registering"', "problem.retryable"),
        ("                elif shot.last_accepted is not None:\n", "                else:\n"),
        ("if self._changes.changed(name, trouble) and trouble:", "if trouble:"),
    ),
    AGENT + "outputs.py": (
        ('if shot.status == "ready" and not self._ready:', "if not self._ready:"),
        ("            self._ready = True\n", ""),
        ("report.state_text(shot), 0o644", "report.state_text(shot), 0o600"),
    ),
    AGENT + "credentials.py": (
        ("    if not given:\n        return None  # not run by systemd\n", ""),
        (
            'for directory in (os.path.join(runtime, HANDED_OVER) if runtime else "", given):',
            'for directory in (given, os.path.join(runtime, HANDED_OVER) if runtime else ""):',
        ),
        ("return path if os.path.getsize(path) > len(ABSENT) else None", "return path"),
        ("    events.SECRETS.add(token)\n", ""),
        (
            "            found.append((path, status.st_ino, status.st_size, status.st_mtime_ns))",
            "            found.append((path, status.st_size))",
        ),
        ("            found.append((path,))\n", "            pass\n"),
        ("        if not os.path.getsize(path):\n            return None\n", "        os.path.getsize(path)\n"),
    ),
    AGENT + "notify.py": (
        ('self._address = "\\0" + address[1:] if address.startswith("@") else address', "self._address = address"),
        ("int(watchdog) / 1e6 if watchdog.isdigit() else None", "int(watchdog) / 1e3 if watchdog.isdigit() else None"),
        (" | socket.SOCK_NONBLOCK\n", "\n"),
        ("            except OSError:\n                pass", "            except ValueError:\n                pass"),
        ("if watchdog.isdigit() else None", "if watchdog else None"),
    ),
    AGENT + "state.py": (
        ("os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK"),
        ("os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC", "os.O_NOFOLLOW | os.O_CLOEXEC"),
        ("if not stat.S_ISREG(os.fstat(handle).st_mode):", "if False:"),
        ("if len(content) <= MAX_BYTES else None", "if content else None"),
        ("    if not isinstance(found, dict):\n", "    if found is None:\n"),
        (
            "            if os.write(handle, content) != len(content):\n",
            "            if os.write(handle, content) < 0:\n",
        ),
        (
            'os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)',
            'os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)',
        ),
        ("json.dumps([boot, payload], sort_keys=True)", "json.dumps([payload], sort_keys=True)"),
        (
            "return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()",
            "return hashlib.sha256(text.encode()).hexdigest()",
        ),
    ),
    AGENT + "client.py": (
        ("if status == 401:", "if status == 403:"),
        ("any(name in body for name in expected)):", "True):"),
        ('problem._replace(cause=problem.cause.replace(token, "(token)"))', "problem"),
    ),
    AGENT + "http.py": (
        ("if opened != self._backend.connections:", "if False:"),
        ("if len(raw) > self._max:", "if False:"),
        ("return left if timeout is None else min(left, timeout)", "return timeout"),
        ("found = self._answers.get(timeout=seconds)", "found = self._answers.get(timeout=60)"),
        ("        if self._answers is None:\n", "        if True:\n"),
        ("                if address == addresses[-1]:\n", "                if address:\n"),
    ),
    AGENT + "cluster.py": (
        ("if response.status_code != 200:", "if response.status_code == 500:"),
        ('if "running" in part.get("state", {})]', "if part]"),
        ("            if not self._ca_path:\n", "            if False:\n"),
    ),
    AGENT + "reload.py": (
        ("            os.fchown(copy, owner.st_uid, owner.st_gid)\n", ""),
        ("os.O_EXCL | os.O_NOFOLLOW, 0o400", "os.O_EXCL | os.O_NOFOLLOW, 0o644"),
        ("        content = credentials.ABSENT\n", '        content = b""\n'),
        ("if main == pid and reloads > before:", "if reloads > before:"),
        ("if main == pid and reloads > before:", "if main == pid:"),
    ),
    AGENT + "config.py": (
        ("if 0.05 <= interval <= protocol.KEEPALIVE_MAX_INTERVAL_SECONDS:", "if 0.05 <= interval:"),
        ('    if words == ("none",):\n        return ()\n', ""),
        ("0 < int(given.gateway_port) < 65536", "0 < int(given.gateway_port) <= 65536"),
        (
            "dict(read_env_file(path) if path else {}, **os.environ)",
            "dict(os.environ, **(read_env_file(path) if path else {}))",
        ),
        ("f'[{host}]' if ':' in host else host", "host"),
        ("    config.machine_token()\n    return config", "    return config"),
        ("events.SECRETS.update(token for token in (config.token, config.k3s_token) if token)", "pass"),
    ),
    AGENT + "events.py": (
        ("if len(secret) > 7 else text", "if len(secret) > 70 else text"),
        ('return "".join(letter if letter.isprintable() else " " for letter in text)', "return text"),
        ("        return before != value", "        return True"),
    ),
    AGENT + "report.py": (
        ("cause=events.clean(problem.cause)) if problem", "cause=problem.cause) if problem"),
        ("int(name == shot.status)", "1"),
        (
            '        lines.extend([f"# HELP beta9_agent_{name} {text}", f"# TYPE beta9_agent_{name} {kind}"])\n',
            "",
        ),
        ("return round(moment - self.now + self.epoch, 3)", "return round(moment + self.epoch, 3)"),
        ("max(0, int(shot.due - shot.now))", "int(shot.due - shot.now)"),
    ),
}
MODULE_MISTAKES = {
    MODULES + "gateway_reachable.py": (
        ("    if unit.exec_code:\n", "    if False:\n"),
        ("failing = unit.restarts > 0 and not up", "failing = unit.restarts > 0"),
        ("failing = unit.restarts > 0 and not up", "failing = not up"),
        ("    text += units.journal(run, name, unit, seconds=LATELY_SECONDS)", "    pass"),
        ("    if known and known.code in CAUSES:\n", "    if False:\n"),
    ),
    MODULES + "host_preflight.py": (
        ("    if not os.path.isfile(path):\n", "    if not os.path.exists(path):\n"),
        ("    if private and mode & 0o077:\n", "    if private and mode & 0o007:\n"),
        ("    if private and mode & 0o077:\n", "    if mode & 0o077:\n"),
    ),
    MODULES + "tunnel_peer.py": (
        ("        fcntl.flock(handle, fcntl.LOCK_EX)\n", ""),
        ('["address"] == address for listener in listeners\n        ):', '["address"] == address for listener in []\n        ):'),
        (
            'listener["uid"] == pwd.getpwnam(user).pw_uid and listener["address"] == address',
            'listener["address"] == address',
        ),
        (
            'if not peer or peer["key"] in (None, key) or params["tunnel_runs"]:',
            'if not peer or peer["key"] in (None, key):',
        ),
        ('if up and params["identity"] != "this":', 'if up and params["identity"] == "new":'),
        (
            '        secretfiles.write(params["path"], after, 0o644, module.check_mode)',
            '        secretfiles.write(params["path"], after, 0o644)',
        ),
        ("    if rival and not module.check_mode:", "    if rival:"),
        (
            '            if holder and params["identity"] == "new":\n',
            '            if holder and params["identity"] == "this":\n',
        ),
    ),
    MODULES + "host_repository.py": (
        ("if set(key.fingerprints) != {wanted}:", "if wanted not in key.fingerprints:"),
        (
            "        return right_key(content, wanted).armour == content\n",
            "        return bool(right_key(content, wanted))\n",
        ),
        ('if not re.match(r"[0-9A-F]{40,64}$", text):', 'if not re.match(r"[0-9A-F]+$", text):'),
        (
            "                for path in changed:\n                    write(path, before[path])\n                raise",
            "                raise",
        ),
        ('b"" if module.check_mode else right_key', "right_key"),
        (
            '    except grammar.InvalidField as error:\n        refuse(error.field, error.expected, error.found, "Correct it.")',
            "    except grammar.InvalidField:\n        pass",
        ),
        ('"gpgcheck=1"', '"gpgcheck=0"'),
        ('    lines.append("Signed-By: " + key_path)\n', ""),
    ),
    MODULES + "agent_install.py": (
        (
            'MEMBER = re.compile(r"(requirements\\.txt|wheels/[A-Za-z0-9_][A-Za-z0-9_.+-]*\\.whl)\\Z")',
            'MEMBER = re.compile(r"(requirements\\.txt|wheels/.*\\.whl)\\Z")',
        ),
        ("if not (member.isfile() and MEMBER.match(member.name)):", "if not MEMBER.match(member.name):"),
        ("        if digest.hexdigest() != sha256:\n", "        if False:\n"),
        ('if not entry.startswith("pip==")', ""),
        ("os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK"),
        ("        if status.st_uid != os.geteuid():\n", "        if False:\n"),
        ("status.st_mode & 0o022:", "status.st_mode & 0o002:"),
    ),
    MODULES + "host_unit.py": (
        (
            'if unit.get("NeedDaemonReload") == "yes" or unit["LoadState"] in ("not-found", "error", "bad-setting"):',
            'if unit.get("NeedDaemonReload") == "yes":',
        ),
        ('    if unit.get("UnitFileState") != "enabled":\n', '    if unit.get("UnitFileState") == "disabled":\n'),
        ("    if not module.check_mode:\n        for verb in verbs:", "    if True:\n        for verb in verbs:"),
        ('["--no-block"] if verb in ("start", "restart") else []', "[]"),
        ('verb = "reload" if unit["ActiveState"] in ("active", "reloading") else "restart"', 'verb = "restart"'),
        (
            '    if unit["ActiveState"] in ("inactive", "failed", "deactivating"):\n',
            '    if unit["ActiveState"] in ("inactive", "failed"):\n',
        ),
        (
            'return ([] if gone or unit["LoadState"] == "not-found" else ["disable --now"]), None',
            'return ([] if gone else ["disable --now"]), None',
        ),
        ('            module.run_command(["systemctl", "reset-failed", name])', "            pass"),
    ),
    MODULES + "host_packages.py": (
        ("    if others:\n        release", "    if False:\n        release"),
        (
            'not re.match(params["hold"] or "(?!)", name) and name not in params["hold_names"]',
            'not re.match(params["hold"] or "(?!)", name)',
        ),
        ("    if foreign:\n        raise package_sets", "    if False:\n        raise package_sets"),
        ("        record.write(asked)\n        manager.install(specs)", "        manager.install(specs)"),
        ("        manager.fetch(specs)\n        record", "        record"),
        (
            "        if missing and not module.check_mode:\n            manager.hold",
            "        if missing:\n            manager.hold",
        ),
        (
            "    if not module.check_mode:\n        record.forget()",
            "    if module.check_mode:\n        record.forget()",
        ),
        ("        asked = dict(begun, **to_install(", "        asked = dict({}, **to_install("),
    ),
    MODULES + "machine_keepalive.py": (
        ('{"status": "ready" if ready else "not ready"}', '{"status": "not ready"}'),
        ('{"status": "ready" if ready else "not ready"}', '{"status": "ready"}'),
        ('machine["id"] == payload["machine_id"]\n        for machine', "True\n        for machine"),
        ('            "ttl_seconds": state.ttl_seconds,\n', ""),
    ),
    ACTION + "machine_enrol.py": (
        ("        if self._task.check_mode:\n", "        if False:\n"),
        ("            client.discard_machine(created)\n            raise", "            raise"),
        ('        if stored.get("failed") or stored.get("unreachable"):\n', '        if stored.get("failed"):\n'),
        ("            client.discard_machine(created)\n            return {", "            return {"),
        (
            'machine = dict(identity, replaces=replaces) if replaces.get("machine_id") else identity',
            "machine = identity",
        ),
        ('arguments["replaces"] = replaces if replaces.get("machine_id") else None', 'arguments["replaces"] = None'),
    ),
    ACTION + "health_report.py": (
        ('"listen": grammar.host_port(told["listen"]) if told["listen"] else "",', '"listen": told["listen"],'),
        ('            "user": grammar.user_name(told["user"]),', '            "user": told["user"],'),
        ('            "port": grammar.port(told["port"]),', '            "port": told["port"],'),
        ('if machine["status"] == "ready"}', "}"),
        (
            "    except (AttributeError, KeyError, TypeError, ValueError) as error:",
            "    except ZeroDivisionError as error:",
        ),
        ('if entry["id"] not in params["skip"] and', "if"),
        ('        if not identity or "observations" not in worker:\n            continue\n', ""),
    ),
    ACTION + "check_verdict.py": (
        ('    if health["outcome"] == "healthy":\n', '    if health["outcome"] != "unhealthy":\n'),
        ('["id"] for verdict in health["verdicts"] if verdict["root"]]', '["id"] for verdict in health["verdicts"] if verdict["status"] == "fail"]'),
        ('"unreachable": True, "msg": f"could', '"failed": True, "msg": f"could'),
        ('"failed": True, "msg": told}', '"msg": told}'),
        ('    if status in ("blocked", "not_applicable"):\n', '    if status in ("blocked",):\n'),
        ('"root cause" if verdict["root"] else', '"root cause" if True else'),
        ('    if status in ("warn", "unknown", "crash"):\n', '    if status in ("warn", "crash"):\n'),
        ("dict(shown, failed=True, msg=told)", "dict(shown, msg=told)"),
    ),
    ACTION + "worker_health.py": (
        ("        if unknown:\n", "        if False:\n"),
        ("and not self._task.check_mode", ""),
        ("<= FEW_HOSTS", ">= FEW_HOSTS"),
        ("if catalog.asked_for(check.id, only, skip)}", "}"),
    ),
    MODULES + "machine_credentials.py": (),
}
HEALTH_MISTAKES = {
    HEALTH + "diagnose.py": (
        ('and "crash" not in statuses and not unseen(verdicts)', "and not unseen(verdicts)"),
        ('and not unseen(verdicts) else "unknown"', 'else "unknown"'),
        ('    if "fail" in statuses:\n', '    if "fail" in statuses or "warn" in statuses:\n'),
        ('if not key.startswith("_")}', "}"),
        ('verdicts[name]["status"] in ("fail", "blocked")\n        ),', 'verdicts[name]["status"] in ("fail",)\n        ),'),
        ('or check.severity == "warn" else "fail"', 'else "fail"'),
        ('            verdict["heal_class"] = terms.OPT_IN\n', "            pass\n"),
        (
            '            verdict.update(status="warn", accepted=accepted[check.id] or "accepted")',
            '            verdict.update(accepted=accepted[check.id] or "accepted")',
        ),
        ('            raise ValueError("cycle: " + " -> ".join(path + [check.id]))', "            return"),
        (' in link and verdict["status"] != "not_applicable"]', " in link]"),
    ),
    HEALTH + "engine.py": (
        (
            "status = _reap(process, max(0.0, deadline - time.monotonic()) if not killed and size <= OUTPUT_BYTES else 0.0)",
            "status = process.poll()",
        ),
        ("if not killed and size <= OUTPUT_BYTES else 0.0)", "if not killed and size <= OUTPUT_BYTES else 30.0)"),
        ("        os.killpg(process.pid, signal.SIGKILL)\n", "        os.kill(process.pid, signal.SIGKILL)\n"),
        ("            start_new_session=True,\n", ""),
        ("stderr=subprocess.PIPE if apart else subprocess.STDOUT", "stderr=subprocess.STDOUT"),
        ("left <= 0 or size > OUTPUT_BYTES or said:", "left <= 0:"),
        ("            if len(secret) >= 8:\n", "            if len(secret) >= 80:\n"),
        ('text = BEARER.sub(r"\\1********", text)', "pass"),
        ('return text if len(text) <= EVIDENCE_BYTES else text[:EVIDENCE_BYTES] + " [cut]"', "return text"),
        ("                    self._shared[name] = (None, error)\n", "                    raise\n"),
        ("with self.slots:", "if True:"),
        ("if ran.status is None and not hangs:", "if ran.status is None:"),
        ("super().__init__(daemon=True, name=check.id)", "super().__init__(daemon=False, name=check.id)"),
    ),
    HEALTH + "control.py": (
        (
            "            check(identity.get(name))\n        except protocol.InvalidField as error:",
            "            check(identity.get(name))\n        except ZeroDivisionError as error:",
        ),
        ('if settings.get("pool") and identity.get("pool") != settings["pool"]:', "if False:"),
    ),
    HEALTH + "join.py": (
        (
            'data.get("M02", {}).get("gpu_count", data.get("C02", {}).get("gpu_count"))',
            'data.get("M02", {}).get("gpu_count")',
        ),
        ("if here is None or there is None:", "if not here or not there:"),
        ('if outcomes.get("U03") == "not_applicable":', 'if outcomes.get("U03") == "ok":'),
        ('    if here and there == "":\n', '    if there == "":\n'),
        ('    if here and there == "":\n', "    if False:\n"),
        ('"M05",\n        "ok" if here == there else "bad",', '"M05",\n        "ok",'),
        ('if not connections.gives(settings.get("connection"), connections.TUNNEL):', "if False:"),
    ),
    HEALTH + "checks/terms.py": (
        (
            'START_TUNNEL = repair(WORKER, "systemctl restart beta9-tunnel")',
            'START_TUNNEL = repair(GATEWAY_HOST, "systemctl restart beta9-tunnel")',
        ),
    ),
    HEALTH + "checks/tunnel.py": (
        (
            '    "timeout": (\n        "the gateway host\'s SSH port does not answer',
            '    "timeouts": (\n        "the gateway host\'s SSH port does not answer',
        ),
    ),
    HEALTH + "probes/tunnel.py": (
        (
            "timeout=timeout, retries=0, **tls)\n    except protocol.InvalidField",
            "timeout=timeout, retries=2, **tls)\n    except protocol.InvalidField",
        ),
        ('and not {"-G", "-W"} & set(words)', ""),
        ("(SSH_CONFIG in words or any(", "(any("),
        ("if not 1 <= interval <= 60:", "if not 1 <= interval <= 600:"),
        ("if count > 3:", "if count >= 3:"),
        ("if len(lost) > 3:", "if len(lost) > 30:"),
        ("steady >= SETTLED_SECONDS:", "steady >= 0:"),
        ('    if others:\n        return bad("duplicate"', '    if False:\n        return bad("duplicate"'),
        ("and int(match.group(1)) == port else None", "else None"),
        ("age is not None and age < CONNECTING_SECONDS for age", "age is not None for age"),
        ('return code if code in ("target_refused", "target_denied") else ""', "return code"),
    ),
    HEALTH + "probes/api.py": (
        ("        if told is None or listed is None or told >= listed:\n            break\n", "        break\n"),
        ('if told is not None and mine["last_keepalive"] is not None and mine["last_keepalive"] > told:', "if False:"),
    ),
    HEALTH + "probes/agent.py": (
        ('{"--dry-run", "--once", "--version", "status", "doctor", "reload"} & set(\n            words\n        ):', "[]:"),
        ("            if given == machine_id:\n", "            if True:\n"),
        ("if late > 60:", "if late > 6000:"),
        (
            "if seconds >= protocol.KEEPALIVE_MAX_INTERVAL_SECONDS:",
            "if seconds > protocol.KEEPALIVE_MAX_INTERVAL_SECONDS:",
        ),
        ("if count <= 3 or unit.age_seconds() > SETTLED_SECONDS:", "if count <= 3:"),
        ("if age is not None and age > 2.5 * seconds + 15:", "if age is not None and age > 25 * seconds + 15:"),
        ('if status.rpartition(")")[2].split()[:1] == ["T"]:', 'if status.split()[2:3] == ["T"]:'),
    ),
}
HOST_MISTAKES = {
    UTILS + "k3s/installer.py": (
        (
            "        if found.hexdigest() != digest:\n            raise _wrong_sum(url",
            "        if False:\n            raise _wrong_sum(url",
        ),
        ("        if promised and int(promised) != size:\n", "        if False:\n"),
        (
            "    except BaseException:\n        secretfiles.remove([path])\n        raise",
            "    except BaseException:\n        raise",
        ),
        ("    if found != digest:\n        secretfiles.remove([path])\n", "    if found != digest:\n"),
        ("    if found != digest:\n        secretfiles", "    if False:\n        secretfiles"),
        ("if pinned and pinned.lower() != listed:", "if False:"),
        ("if (then[0], then[1] - 1) > now[:2]:", "if (then[0], then[1] - 2) > now[:2]:"),
        ("    if then < now:\n", "    if then <= now:\n"),
        ("int(candidate) if candidate else 10**6", "int(candidate) if candidate else 0"),
        ("and not (pinned or insecure):", "and not insecure:"),
        (
            'return bool(entry) and (stat.st_size, stat.st_mtime_ns) == (entry["size"], entry["mtime_ns"])',
            'return bool(entry) and stat.st_size == entry["size"]',
        ),
        ("return f\"{base.rstrip('/')}/{quote(version, safe='.')}/{name}\"", "return f\"{base.rstrip('/')}/{version}/{name}\""),
    ),
    UTILS + "host/secretfiles.py": (
        ("os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)", "os.O_CREAT | os.O_NOFOLLOW, 0o600)"),
        ("            os.fchmod(handle, mode)\n", ""),
        ("    remove([temporary])\n    handle", "    handle"),
        (
            "    except BaseException:\n        remove([temporary])\n        raise",
            "    except BaseException:\n        raise",
        ),
        (
            "        os.chown(path, os.geteuid(), os.getegid())\n        os.chmod(path, mode)\n    return True",
            "        os.chmod(path, mode)\n    return True",
        ),
        ("    if not os.path.islink(path):\n", "    if True:\n"),
        (
            "wrong = mode & WRITABLE if own else mode & 0o002 and not mode & stat.S_ISVTX",
            "wrong = mode & WRITABLE if own else False",
        ),
    ),
    UTILS + "connections.py": (
        ('return what in ("", of(name).gives)', 'return what in ("", *(mode.gives for mode in MODES))'),
        ("gateway_url=lambda read: None, hostname=lambda read: None)", ")"),
        ("return BY_NAME.get(str(name)) or Mode(str(name)", "return MODES[0] or Mode(str(name)"),
        ('if field == "stored_as" and read(GIVEN["hostname"]) is not None:', "if False:"),
        ("    if given is not None:\n        return given\n", ""),
        ('read("tailscale_gateway_mode") or "tailnet"', '"tailnet"'),
        ('re.match(r"[0-9]{1,5}\\Z", port)', "port"),
        ('read("beta9_worker_gateway_url") or read("beta9_gateway_url") or ""', 'read("beta9_gateway_url") or ""'),
        ("api_networks=(),  # the gateway", "api_networks=ANYWHERE,  # the gateway"),
        ('read("ansible_host") or read("inventory_hostname")', 'read("inventory_hostname")'),
    ),
    UTILS + "host/package_locks.py": (
        ("return begun and not ended and not disabled", "return begun and not ended"),
        ('[word for word in words[1:2] if word.startswith("/")]', "words[1:2]"),
        ("None if kind == fcntl.F_UNLCK else", "None if kind == fcntl.F_RDLCK else"),
    ),
    UTILS + "host/openpgp.py": (
        ("if tag not in (PRIMARY_KEY, SUBKEY, SIGNATURE, USER_ID):", "if False:"),
        ("    if start + length > len(data):\n", "    if False:\n"),
    ),
    UTILS + "host/units.py": (
        ("if not any(os.access(name, os.R_OK) for name in files):", "if False:"),
        (
            'journald.load != "not-found" and journald.active != "active":\n        raise Unreadable',
            'journald.active == "x":\n        raise Unreadable',
        ),
    ),
}
CONTROLLER_MISTAKES = {
    "plugins/lookup/connection.py": (
        ('self.get_option("mode") or read("beta9_connection")', 'read("beta9_connection")'),
        ('return variables["hostvars"][host].get(name)', "pass"),
        ('            value = self.get_option("default")\n', "            pass\n"),
    ),
    "plugins/plugin_utils/remote.py": (
        (
            "return isinstance(value, (int, float)) and not isinstance(value, bool)",
            "return isinstance(value, (int, float))",
        ),
        ("signal.setitimer(signal.ITIMER_REAL, left)", "signal.setitimer(signal.ITIMER_REAL, 0)"),
        (
            "    trust.require_own_variables(task_vars)\n    try:\n        result = documented",
            "    try:\n        result = documented",
        ),
        ("class TooLate(BaseException):", "class TooLate(Exception):"),
        ("if wrong:\n        return malformed", "if False:\n        return malformed"),
        ('for entry in found["warnings"][:20]]', 'for entry in found["warnings"]]'),
        ('return connection.has_pipelining and become.rpartition(".")[2] != "su"', "return connection.has_pipelining"),
    ),
}

TABLES = (PROTOCOL, GATEWAY, AGENT_MISTAKES, MODULE_MISTAKES, HEALTH_MISTAKES, HOST_MISTAKES, CONTROLLER_MISTAKES)
MISTAKES = [Mistake(file, was, now) for table in TABLES for file, entries in table.items() for was, now in entries]
