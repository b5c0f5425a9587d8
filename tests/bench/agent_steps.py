"""The agent's steps one after the other, without the pause between them: what a keepalive costs where the caches are warm.

    python -I agent_steps.py ROUNDS [OPTION OF THE AGENT ...]      run by the agent's own Python

A step is all of it: GPUs, metrics, request, answer, state file. Prints {"cpu_ms_per_keepalive"} of all threads, start not included.
"""

import gc
import json
import sys
import time

from beta9_agent import config
from beta9_agent.agent import Agent

WARM = 100


def main():
    rounds, options = int(sys.argv[1]), sys.argv[2:]
    agent = Agent(lambda: config.from_arguments(options))
    gc.freeze()  # as Agent.run does
    for _round in range(WARM):
        agent.step()
        gc.collect()
    before, first = time.process_time(), agent.history.counts["keepalives"]
    for _round in range(rounds):
        agent.step()
        gc.collect()
    spent, counted = time.process_time() - before, agent.history.counts["keepalives"] - first
    if counted != rounds:
        sys.exit("bench: %d of %d keepalives were accepted: %s" % (counted, rounds, agent.life.problem))
    print(json.dumps({"cpu_ms_per_keepalive": 1000 * spent / rounds}))


if __name__ == "__main__":
    main()
