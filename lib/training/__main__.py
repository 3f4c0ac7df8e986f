"""Train the models of a study: `python -m lib.training --study demo`."""

import sys

from lib.core.memory import start_again_with_kept_memory

if __name__ == "__main__":
    start_again_with_kept_memory("lib.training")
    from lib.core import stage
    from lib.training.study import measure

    sys.exit(stage.main(measure, "train"))
