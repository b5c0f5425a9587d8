"""Command line. Exit status: 0 stopped as asked or --once with success, 1 --once without success, 2 wrong settings."""

from __future__ import annotations

import json
import signal
import sys

from . import config as settings
from . import events, protocol


def dry_run(agent):
    """Print what would be sent, without tokens."""
    payload = dict(agent.register_payload(), token="(not shown)")
    print(json.dumps({"gateway": agent.config.gateway_url, "register": payload, "keepalive": agent.keepalive_payload()}, indent=2))


def main(argv=None):
    """Run the agent, or one of its other commands."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["reload"]:
        from .reload import main as command

        return command(argv[1:])
    if argv[:1] in (["status"], ["doctor"]):
        from . import status

        return getattr(status, argv[0])(argv[1:])
    return run(argv)


def run(argv):
    """Run the agent."""
    try:
        config = settings.from_arguments(argv)
    except protocol.InvalidField as error:
        print("beta9-agent: %s" % error, file=sys.stderr)
        return 2
    from .agent import SIGNALS, Agent  # after the settings: a wrong one is told without the time that its packages take to load

    lasting = not (config.once or config.dry_run)
    if lasting:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the loop reads them; before NVML's thread, which inherits this
    first = [config]
    try:
        agent = Agent(lambda: first.pop() if first else settings.from_arguments(argv), **({} if lasting else {"wait": lambda _seconds: None}))
    except protocol.InvalidField as error:
        print(f"beta9-agent: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print("beta9-agent: ca_path: expected readable CA certificates, found %s: %s" % (config.ca_path, error), file=sys.stderr)
        return 2
    if lasting and any(word.split("=")[0] == "--token" for word in argv):
        events.log(events.WARNING, "token_in_argv", remedy="every user of this host can read it; use --token-file")
    if config.dry_run:
        dry_run(agent)
        return 0
    ready = agent.run()
    if config.once and not ready:
        problem = agent.life.problem
        print("beta9-agent: %s. %s" % (problem.cause, problem.remedy) if problem else "beta9-agent: stopped", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
