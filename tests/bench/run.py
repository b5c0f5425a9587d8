"""make bench: what things cost, in ratios measured side by side in one run. Writes build/bench.json, one object per area.

    run.py [--area NAME ...] [--rounds 5] [--hosts 20] [--keep]

Each area is a file beside this one with run(options) -> {area: results}. Areas that are not run keep their last results.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULT = ROOT / "build" / "bench.json"
AREAS = ("agent", "health", "fleet")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", action="append", choices=AREAS, help="may be given more than once (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hosts", type=int, default=20, help="of area health")
    parser.add_argument("--keep", action="store_true", help="leave the hosts of area health running")
    options = parser.parse_args()
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for area in options.area or AREAS:
        found = importlib.import_module(area).run(options)
        result.update(found, machine={"cores": os.cpu_count(), "note": "test hosts are containers that share these cores"})
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
