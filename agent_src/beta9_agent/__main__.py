"""Command line. Exit status: 0 ready or stopped as asked, 1 --once without success, 2 wrong settings."""

from __future__ import annotations

import json
import logging
import signal
import sys

from . import config as settings
from . import protocol


def dry_run(agent):
    """Print what would be sent, without tokens."""
    payload = dict(agent.register_payload(), token="(not shown)")
    print(json.dumps({"gateway": agent.config.gateway_url, "register": payload, "keepalive": agent.keepalive_payload()}, indent=2))


def main(argv=None):
    """Run the agent."""
    try:
        config = settings.from_arguments(argv)
    except protocol.InvalidField as error:
        print("beta9-agent: %s" % error, file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.DEBUG if config.debug else logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    if config.token and not config.once and "--token" in " ".join(sys.argv if argv is None else argv):
        logging.getLogger("beta9_agent").warning("token_in_argv every user of this host can read it; use --token-file")
    from .agent import Agent  # after the settings: a wrong one is told without the time that httpx takes to load

    agent = Agent(config)
    if config.dry_run:
        dry_run(agent)
        return 0
    signal.signal(signal.SIGTERM, lambda *_args: agent.stop())
    signal.signal(signal.SIGINT, lambda *_args: agent.stop())
    signal.signal(signal.SIGHUP, lambda *_args: agent.reload())
    ready = agent.run()
    if config.once and not ready:
        problem = agent.life.problem
        print("beta9-agent: %s. %s" % (problem.cause, problem.remedy) if problem else "beta9-agent: stopped", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
