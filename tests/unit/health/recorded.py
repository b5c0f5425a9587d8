"""A context whose commands, files and Redis give what was recorded on real hosts."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.agent import statefile
from ansible_collections.beta9.workers.plugins.module_utils.health import engine


class Context(engine.Context):
    """answers: {beginning of a command's words: (status, output), output, or None for a program that is missing}; the longest one fits.

    Where a probe keeps stderr apart, the output of a command that failed is there; (status, output, errors) tells both.

    files: {path: text}; one that is not named does not exist. redis: object with call(), used where a probe asks Redis.
    """

    def __init__(self, answers=None, files=None, redis=None, **config):
        super().__init__(dict({"connection": "autossh", "gpus": None, "k3s": True, "kube": True, "namespace": "beta9"}, **config))
        self.answers, self.files, self.commands, self.untils = answers or {}, files or {}, [], []
        if redis is not None:
            self.shared("redis", lambda: redis)

    def run(self, *command, timeout=4.0, stdin=None, hangs=False, apart=False, until=""):
        words = " ".join(command)
        self.commands.append(words)
        self.untils += [until] if until else []
        fitting = [key for key in self.answers if words.startswith(key)]
        answer = self.answers[max(fitting, key=len)] if fitting else None
        if answer is None:
            raise engine.Missing("%s is not installed" % command[0])
        status, output, *errors = answer if isinstance(answer, tuple) else (0, answer)
        if apart and status and not errors:
            output, errors = "", [output]
        if status is None and not hangs:
            raise engine.Unknown("%s did not end" % command[0])
        return engine.Ran(status, output, errors="".join(errors))

    def read(self, path):
        return self.files.get(path)

    def agent_state(self, path):
        return statefile.parse(self.files.get(path) or "")


class Redis:
    """Replies of a Redis that holds hashes, sets and times to live."""

    def __init__(self, hashes=None, sets=None, ttls=None):
        self.hashes, self.sets, self.ttls, self.calls = hashes or {}, sets or {}, ttls or {}, []

    def call(self, *words):
        self.calls.append(words)
        name, rest = words[0], words[1:]
        if name == "PING":
            return "PONG"
        if name == "HMGET":
            return [self.hashes.get(rest[0], {}).get(field) for field in rest[1:]]
        if name == "HGET":
            return self.hashes.get(rest[0], {}).get(rest[1])
        if name == "EXISTS":
            return int(rest[0] in self.hashes)
        if name == "TTL":
            return self.ttls.get(rest[0], -2)
        if name == "SMEMBERS":
            return self.sets.get(rest[0], [])
        if name == "SCAN":
            keys = sorted(self.sets)
            return ["0", keys[1:]] if rest[0] == "7" else ["7", keys[:1]]
        raise AssertionError(words)


def told(seen):
    """Return what matters of an observation."""
    return seen["outcome"], seen.get("code", "")
