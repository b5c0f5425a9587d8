"""A TEST DOUBLE of kubectl for the gateway's cluster: answers from /etc/beta9-kubectl-double.json; exec runs the real redis-cli.

{"denied": [], "pods": {"app=gateway": [...]}, "services": {...}, "endpointslices": {...}, "configmaps": {...}, "secrets": {...},
 "health": {...}, "log": "..."}

Texts and exit statuses are those of the real program (tests/kubernetes has it): answers on stdout, warnings and errors on stderr.
"""

import json
import subprocess
import sys

KINDS = {"service": "services", "endpointslices": "endpointslices", "configmap": "configmaps", "secret": "secrets"}


def fail(text):
    print(text, file=sys.stderr)
    return 1


def get(state, words):
    """get KIND [NAME] [-l LABEL] [--ignore-not-found]"""
    kind = words[1]
    if "-l" in words:
        label = words[words.index("-l") + 1]
        items = state["pods"].get(label, []) if kind == "pods" else state.get(KINDS[kind], {}).get(label.partition("=")[2], [])
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}}, indent=4))
        return 0
    found = state.get(KINDS[kind], {}).get(words[2])
    if found is not None:
        print(json.dumps({"apiVersion": "v1", "metadata": {"name": words[2]}, **found}, indent=4))  # the real API has no object without metadata
        return 0
    return 0 if "--ignore-not-found" in words else fail('Error from server (NotFound): %s "%s" not found' % (KINDS[kind], words[2]))


def main():
    with open("/etc/beta9-kubectl-double.json", encoding="utf-8") as stream:
        state = json.load(stream)
    words = [word for word in sys.argv[1:] if not word.startswith("--request-timeout")]
    for option in ("-n", "--kubeconfig", "-o", "-c"):
        while option in words:
            del words[words.index(option) : words.index(option) + 2]
    print("Warning: a warning of the TEST DOUBLE, on stderr as the real ones", file=sys.stderr)
    if state.get("forbidden"):
        return fail('Error from server (Forbidden): pods is forbidden: User "someone" cannot list resource "pods" in API group "" in the namespace "beta9"')
    verb = words[0]
    if verb == "auth":
        allowed = "%s %s" % (words[2], words[3]) not in state.get("denied", [])
        print("yes" if allowed else "no")
        return 0 if allowed else 1
    if verb == "logs":
        print(state.get("log", ""))
        return 0
    if verb == "exec":
        return subprocess.call(words[words.index("--") + 1 :])
    if verb == "get" and "--raw" in words:
        print(json.dumps(state.get("health", {"status": "ok"})))
        return 0
    if verb == "describe" or "," in words[1] or (words[1] == "pods" and "-l" not in words) or (verb == "get" and len(words) == 2):
        print(json.dumps(state, indent=1))  # for a person to read
        return 0
    if verb == "get":
        return get(state, words)
    return fail('error: unknown command "%s" for "kubectl"' % verb)


sys.exit(main())
