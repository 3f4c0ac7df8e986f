"""Measure the models of a study: `python -m lib.evaluation --study demo`."""

import sys

from lib.core.memory import start_again_with_kept_memory

if __name__ == "__main__":
    start_again_with_kept_memory("lib.evaluation")
    from lib.core import stage
    from lib.evaluation.measure import measure

    sys.exit(stage.main(measure, "shift"))
