"""Measure the models of a study: `python -m lib.evaluation --study demo`."""

import sys

from lib.core import stage
from lib.evaluation.measure import measure

sys.exit(stage.main(measure, "shift"))
