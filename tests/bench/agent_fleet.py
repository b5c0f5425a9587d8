"""A fleet of agents on a simulated clock: the agent's own Lifecycle, a gateway that remembers and forgets, and a count of what arrives.

Only time and the network are simulated. Machine ids are random, as the gateway makes them, so the phases of a fleet are independent:
the number of keepalives in one second scatters as that of any independent arrivals does, whatever the agents do. That is told as
peak_1s, beside the peak of as many arrivals at random; the bars are held against the load over 10 s.
"""

from __future__ import annotations

import heapq
import random
import statistics

from beta9_agent import protocol
from beta9_agent.lifecycle import Lifecycle

INTERVAL, TTL, LATENCY = 60.0, 300.0, 0.02
STEADY, OUTAGE, AFTER = (600.0, 1200.0), (1200.0, 1380.0), 1380.0
WINDOW = 10
REGISTERED = protocol.parse_machine_state({"machine_state": {"status": "registered", "ttl_seconds": 300}})
READY = protocol.parse_machine_state({"machine_state": {"status": "ready", "ttl_seconds": 300}})
REFUSED = protocol.classify(None, "refused")
FORGOTTEN = protocol.classify(500, {"message": "Failed to update keepalive: machine not found"})


def simulate(agents, seed):
    """Run a fleet that boots within 10 s; return (times of accepted keepalives, times of registers, when each was ready again)."""
    rng = random.Random(seed)
    lives, known, queue = [], [0.0] * agents, []
    for number in range(agents):
        boot = rng.uniform(0.0, 10.0)
        lives.append(Lifecycle("%08x" % rng.getrandbits(32), INTERVAL, boot, random.Random(rng.random())))
        heapq.heappush(queue, (boot, number))
    keepalives, registers, back = [], [], {}
    while queue[0][0] < AFTER + 120.0:
        now, number = heapq.heappop(queue)
        life, action = lives[number], lives[number].action
        answered = now + LATENCY
        if OUTAGE[0] <= now < OUTAGE[1]:
            life.failed(answered, REFUSED)
        elif action == "register":
            registers.append(now)
            known[number] = now + TTL
            life.registered(answered, REGISTERED)
        elif known[number] < now:
            life.failed(answered, FORGOTTEN)
        else:
            keepalives.append(now)
            known[number] = now + TTL
            life.kept(answered, READY)
            if now >= AFTER:
                back.setdefault(number, now - AFTER)
        heapq.heappush(queue, (max(life.due, answered), number))
    return keepalives, registers, back


def peak(times, span, window, step=1):
    """Return the most events a second in any window of so many seconds within a span."""
    start, seconds = span[0], int(span[1] - span[0])
    bins = [0] * seconds
    for moment in times:
        if span[0] <= moment < span[1]:
            bins[int(moment - start)] += 1
    return max(sum(bins[at : at + window]) for at in range(0, seconds - window + 1, step)) / window


def mean(times, span):
    """Return events a second."""
    return sum(span[0] <= moment < span[1] for moment in times) / (span[1] - span[0])


def measure(agents=2000, seeds=range(1, 6)):
    """Return the worst figures of several fleets."""
    rows = []
    for seed in seeds:
        keepalives, registers, back = simulate(agents, seed)
        minute = (AFTER, AFTER + 60.0)
        steady, rng = mean(keepalives, STEADY), random.Random(seed)
        scattered = [rng.uniform(*STEADY) for _arrival in range(int(steady * (STEADY[1] - STEADY[0])))]
        rows.append(
            {
                "steady_keepalives_per_second_mean": steady,
                "steady_peak_10s_to_mean": peak(keepalives, STEADY, WINDOW) / steady,
                "steady_peak_1s_to_mean": peak(keepalives, STEADY, 1) / steady,
                "random_arrivals_peak_1s_to_mean": peak(scattered, STEADY, 1) / steady,
                "after_outage_peak_10s_to_steady_mean": peak(keepalives, minute, WINDOW) / steady,
                "after_outage_peak_1s_to_steady_mean": peak(keepalives, minute, 1) / steady,
                "after_outage_ready_again_median_seconds": statistics.median(back.values()),
                "after_outage_ready_again_last_seconds": max(back.values()) if len(back) == agents else float("inf"),
                "registers_after_outage": sum(moment >= AFTER for moment in registers),
            }
        )
    return dict({name: round(max(row[name] for row in rows), 2) for name in rows[0]}, agents=agents, fleets=len(rows), outage_seconds=OUTAGE[1] - OUTAGE[0])
