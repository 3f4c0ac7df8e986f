"""Measure the models of a study: `python -m lib.evaluation --study demo`."""

import sys

if __name__ == "__main__":
    from lib.core import stage
    from lib.evaluation.measure import measure

    sys.exit(stage.main(measure, "shift"))
