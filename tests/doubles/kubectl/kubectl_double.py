"""A TEST DOUBLE of kubectl for the gateway's cluster: answers from /etc/beta9-kubectl-double.json; exec runs the real redis-cli.

{"denied": [], "pods": {"app=gateway": [...]}, "services": {...}, "endpoints": {...}, "configmaps": {...}, "health": {...}, "log": "..."}
"""

import json
import subprocess
import sys


def main():
    with open("/etc/beta9-kubectl-double.json", encoding="utf-8") as stream:
        state = json.load(stream)
    words = [word for word in sys.argv[1:] if not word.startswith("--request-timeout")]
    for option in ("-n", "--kubeconfig", "-o"):
        while option in words:
            del words[words.index(option) : words.index(option) + 2]
    if state.get("forbidden"):
        print('Error from server (Forbidden): pods is forbidden: User "someone" cannot list resource')
        return 1
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
    if verb == "get" and words[1] == "pods":
        print(json.dumps({"items": state["pods"].get(words[words.index("-l") + 1], [])}))
        return 0
    if verb == "get":
        found = state[{"service": "services", "endpoints": "endpoints", "configmap": "configmaps"}[words[1]]].get(words[2])
        if found is not None:
            print(json.dumps(found))
            return 0
        return 0 if "--ignore-not-found" in words else 1
    return 1


sys.exit(main())
