"""make chaos: everything that happens to a machine in a year, for real on test hosts, and how long it takes until it is ready again.

Writes build/chaos.json: a list of {fault, recovered, seconds, note}. seconds count from the end of the fault (or from the fault itself,
where nothing ends it) to the first keepalive that the gateway accepted, as the gateway's own log has it; of a failed upgrade it is the
longest time without one. recovered: that in time, and Redis says ready, the unit is up, the machine is the same one, the pool has no
record too many. TTL and interval are a tenth of the real ones.

    run.py [--only REGEX] [--dark SECONDS] [--keep]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.chaos.bed import Bed, accepted_keepalive
from tests.chaos.catalog import ALL

INTERVAL_SECONDS, TTL_SECONDS = 6, 30


def longest_gap(requests, identity, start, end):
    """Return the longest time without an accepted keepalive."""
    moments = [line["time"] for line in requests if line["machine_id"] == identity and accepted_keepalive(line)]
    moments = [start] + [moment for moment in moments if start < moment < end] + [end]
    return max(after - before for before, after in zip(moments, moments[1:]))


def one(bed, chaos):
    """Let one thing happen; return its row."""
    hosts = bed.workers if chaos.all_hosts else (bed.worker,)
    if chaos.arm:
        chaos.arm(bed)
    if bed.wait_ready(bed.workers, time.time() - bed.interval, 60) is None:
        return {"fault": chaos.name, "recovered": False, "seconds": None, "note": "not made: the hosts were not ready before it"}
    bed.forget()
    before, units = bed.identity(bed.worker), bed.unit(bed.worker)
    made = since = time.time()
    trouble, during = [], {}
    for act in (chaos.make, chaos.end):
        if act and act is chaos.end:
            time.sleep(0 if trouble else chaos.hold)
            during = bed.agent(bed.worker)
            since = time.time()
        try:
            if act:
                act(bed)
        except RuntimeError as error:
            trouble.append(str(error))
    seconds = bed.wait_ready(hosts, since, bed.interval + chaos.within + 60)
    ended = time.time()
    requests, after = bed.requests(), bed.identity(bed.worker)
    records = bed.records()
    gap = longest_gap(requests, after, made, ended)
    if seconds is not None and chaos.by_gap:
        seconds = gap
    if seconds is None:
        trouble.append("not ready again: %s" % json.dumps(bed.agent(bed.worker).get("problem")))
    elif seconds > bed.interval + chaos.within:
        trouble.append("expected within %d s" % (bed.interval + chaos.within))
    if chaos.same_machine and before != after:
        trouble.append("another machine: %s, then %s" % (before, after))
    if sorted(records) != sorted(bed.identity(host) for host in bed.workers):
        trouble.append("records of the pool: %s" % records)
    now = bed.unit(bed.worker)
    notes = []
    if during.get("status") and during["status"] != "ready":
        notes.append("during it the agent said %s (%s)" % (during["status"], (during.get("problem") or {}).get("code")))
    notes.append("longest gap between accepted keepalives %.1f s%s" % (gap, ", %.1f s beyond the TTL" % (gap - bed.ttl) if gap > bed.ttl else ""))
    told = [line for line in requests if line["path"].endswith("/register") and line["status"] == 200 and not line.get("fault")]
    registrations = sum(line["machine_id"] == after for line in told)
    notes.append("%d registrations" % registrations)
    notes.append("agent process %s" % ("the same" if units["MainPID"] == now["MainPID"] else "another"))
    notes.append("peak RSS %s MiB" % bed.peak_rss_mib(bed.worker))
    if chaos.clean:
        chaos.clean(bed)
    return {
        "fault": chaos.name,
        "recovered": not trouble,
        "seconds": None if seconds is None else round(seconds, 1),
        "note": "; ".join(trouble + notes),
    }


def leaks(bed):
    """Return the row of the search for every token that there was."""
    bed.learn_secrets()
    start = time.monotonic()
    places = bed.secrets_found()
    note = "; ".join(places) or "%d tokens, %d playbook runs, %d hosts: journals, command lines, environments and files" % (
        len(bed.secrets),
        len(bed.outputs),
        len(bed.workers) + 1,
    )
    return {"fault": "(afterwards) a token in any log", "recovered": not places, "seconds": round(time.monotonic() - start, 1), "note": note}


def show(row):
    """Print a row and return it."""
    print("%-5s %-52s %6s s  %s" % ("ok" if row["recovered"] else "LOST", row["fault"][:52], row["seconds"], row["note"]), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose name this regular expression finds")
    parser.add_argument("--dark", type=float, default=60, help="seconds that the network is dark (600: as long as it says)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts running")
    options = parser.parse_args()
    bed = Bed("b9c", INTERVAL_SECONDS, TTL_SECONDS)
    bed.start()
    rows, path = [], ROOT / "build" / "chaos.json"
    for chaos in ALL:
        if re.search(options.only, chaos.name):
            if "dark" in chaos.name:
                chaos = chaos._replace(hold=options.dark, name="%s (%d s)" % (chaos.name, options.dark))
            rows.append(show(one(bed, chaos)))
            path.write_text(json.dumps(rows, indent=1) + "\n")
    rows.append(show(leaks(bed)))
    path.write_text(json.dumps(rows, indent=1) + "\n")
    lost = [row for row in rows if not row["recovered"]]
    print("%d of %d recovered -> %s" % (len(rows) - len(lost), len(rows), path.relative_to(ROOT)))
    if not options.keep:
        bed.testbed("down")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
