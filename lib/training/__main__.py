"""Train the models of a study: `python -m lib.training --study demo`."""

import sys

from lib.core import stage
from lib.training.study import measure

sys.exit(stage.main(measure, "train"))
