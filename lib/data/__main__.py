"""The measuring step of page 01: `python -m lib.data --study demo`."""

import sys

from lib.core import stage
from lib.data.prepare import measure

sys.exit(stage.main(measure, "data"))
