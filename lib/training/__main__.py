"""Train the models of a study: `python -m lib.training --study demo`."""

import sys

if __name__ == "__main__":
    from lib.core import stage
    from lib.training.study import measure

    sys.exit(stage.main(measure, "train"))
