"""Measure the attention of a study's models: `python -m lib.attention --study demo`."""

import sys

if __name__ == "__main__":
    from lib.attention.measure import measure
    from lib.core import stage

    sys.exit(stage.main(measure, "attention"))
