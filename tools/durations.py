"""Writes tests/durations.txt, by which conftest.py tells which cases are quick.

    pytest -q --durations=0 --durations-min=0.05 > log
    python tools/durations.py log [--scale 1.0]

Cases that the run did not have keep what was recorded. ``--scale`` is for a busy machine: how long
a test takes on a quiet one, of two cores, to how long it took.
"""

import argparse
import collections
import re
from pathlib import Path

RECORD = Path(__file__).parents[1] / "tests" / "durations.txt"
LEAST = 0.3  # seconds, below which a case counts for nothing
_LINE = re.compile(r"([\d.]+)s (?:call|setup|teardown)\s+(\S.*)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    new: dict[str, float] = collections.defaultdict(float)
    for line in arguments.log.read_text().splitlines():
        if match := _LINE.match(line):
            new[match[2].strip()] += arguments.scale * float(match[1])
    lines = RECORD.read_text().splitlines() if RECORD.exists() else []
    old = {name: float(number) for number, name in (line.split(" ", 1) for line in lines)}
    seconds = old | new
    kept = sorted(name for name, x in seconds.items() if x >= LEAST)
    RECORD.write_text("".join(f"{seconds[name]:.1f} {name}\n" for name in kept))


if __name__ == "__main__":
    main()
