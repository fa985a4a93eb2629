"""`make honesty`: the whole table, in a file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edgeloop.analysis.spread import DECISION_RULE, RULES
from honesty.page import page
from honesty.scores import score_cells
from honesty.times import is_broken, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page. Returns 1 where a promised cell is over its nominal error, 0 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m honesty", description="Write the table of false passes and false fails."
    )
    parser.add_argument("--trials", type=int, default=2000, help="of each cell")
    parser.add_argument("--seed", type=int, default=20250701)
    parser.add_argument("--rule", choices=sorted(RULES), default=DECISION_RULE)
    parser.add_argument("--out", type=Path, default=Path("docs/results/honesty.md"))
    options = parser.parse_args(arguments)
    began = time.monotonic()

    def say(what: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {what}\n")

    rule = RULES[options.rule]
    cells = table(options.trials, options.seed, rule, say)
    scores = score_cells(options.trials, options.seed, rule, say)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page(cells, scores, trials=options.trials, seed=options.seed, rule=rule), encoding="utf-8")
    over = [cell for cell in cells if is_broken(cell)]
    sys.stdout.write(
        f"wrote {options.out}; {len(over)} of {len(cells)} cells on times over 5 % where they must not be\n"
    )
    for cell in over:
        sys.stdout.write(
            f"  {cell.setting}, {cell.noise}, {cell.kind}, {cell.statistic}: {cell.passes}, {cell.fails}\n"
        )
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
