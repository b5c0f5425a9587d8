"""Command line. Exit status: 0 stopped as asked or --once with success, 1 --once without success, 2 wrong settings."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

from . import config as settings
from . import events, protocol

if TYPE_CHECKING:
    from .agent import Agent


def dry_run(agent: Agent) -> None:
    """Print what would be sent, without tokens."""
    from . import bodies

    register = dict(bodies.register(agent.config, agent.machine), token="(not shown)")
    keepalive = bodies.keepalive(agent.config, agent.machine)
    print(json.dumps({"gateway": agent.config.gateway_url, "register": register, "keepalive": keepalive}, indent=2))


def main(argv: list[str] | None = None) -> int:
    """Run the agent, or one of its other commands."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["reload"]:
        from .reload import main as command

        return command(argv[1:])
    if argv[:1] in (["status"], ["doctor"]):
        from . import status

        return (status.status if argv[0] == "status" else status.doctor)(argv[1:])
    return run(argv)


def run(argv: list[str]) -> int:
    """Run the agent."""
    try:
        config = settings.from_arguments(argv)
    except protocol.InvalidField as error:
        print(f"beta9-agent: {error}", file=sys.stderr)
        return 2
    # after the settings: a wrong one is told without the time that its packages take to load
    from .agent import SIGNALS, Agent

    lasting = not (config.once or config.dry_run)
    if lasting:
        signal.pthread_sigmask(
            signal.SIG_BLOCK, SIGNALS
        )  # the loop reads them; before NVML's thread, which inherits this
    first = [config]

    def load() -> settings.Config:
        return first.pop() if first else settings.from_arguments(argv)

    try:
        agent = Agent(load) if lasting else Agent(load, wait=lambda _seconds: None)
    except protocol.InvalidField as error:
        print(f"beta9-agent: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        expected = "ca_path: expected readable CA certificates"
        print(f"beta9-agent: {expected}, found {config.ca_path}: {error}", file=sys.stderr)
        return 2
    if lasting and any(word.split("=")[0] == "--token" for word in argv):
        events.log(events.WARNING, "token_in_argv", remedy="every user of this host can read it; use --token-file")
    if config.dry_run:
        dry_run(agent)
        return 0
    ready = agent.run()
    if config.once and not ready:
        problem = agent.life.problem
        print(f"beta9-agent: {f'{problem.cause}. {problem.remedy}' if problem else 'stopped'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
