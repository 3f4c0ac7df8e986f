"""The measuring step of page 01: `python -m lib.data --study demo`."""

import sys

if __name__ == "__main__":
    from lib.core import stage
    from lib.data.summary import measure

    sys.exit(stage.main(measure, "data"))
