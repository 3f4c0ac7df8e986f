"""Measure the attention of a study's models: `python -m lib.attention --study demo`."""

import sys

from lib.core.memory import start_again_with_kept_memory

if __name__ == "__main__":
    start_again_with_kept_memory("lib.attention")
    from lib.attention.measure import measure
    from lib.core import stage

    sys.exit(stage.main(measure, "attention"))
