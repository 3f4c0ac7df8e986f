"""What lies in the folders of one's own that a study reads, so that new files are noticed.

    python -m lib.data.listing --study own

writes data/files/<study>.csv: a row a file, with its size and the time of its last change. DVC runs
this whenever it runs at all, and prepares the images again if the listing has changed. Data sets
that the study fetches or draws have an empty one.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.files import write_table
from lib.data import datasets
from lib.data.backgrounds import OR
from lib.data.own import hidden, walk

FETCHED = ("unsplash", "rendered")  # backgrounds that are nobody's own folder
COLUMNS = ["folder", "path", "bytes", "changed"]


def listing(root: Path) -> pd.DataFrame:
    """Every visible file below a folder: path, bytes, time of the last change in nanoseconds."""
    rows = []
    for place, files, _ in walk(root):
        for file in (place / name for name in files if not hidden(name)):
            try:
                facts = file.stat()
                when = (facts.st_size, facts.st_mtime_ns)
            except OSError:  # a link to nowhere, or no right to look
                when = (-1, -1)
            rows.append((file.relative_to(root).as_posix(), *when))
    return pd.DataFrame(rows, columns=COLUMNS[1:])


def of_study(study: str) -> pd.DataFrame:
    """The files of the folders of one's own that a study names: folder, path, bytes, changed."""
    data, folders = params.section(study, "data"), []
    if datasets.get(data.get("dataset", "")).own:
        folders.append(data.get("options", {}).get("folder", ""))
    folders += [name for name in data.get("backgrounds", "").split(OR) if name not in FETCHED]
    places = {name: paths.ROOT / Path(name).expanduser() for name in folders if name}
    parts = [listing(place).assign(folder=name) for name, place in places.items()]
    return pd.concat([pd.DataFrame(columns=COLUMNS), *parts])[COLUMNS]


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, or 2 where a folder cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m lib.data.listing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--study", required=True, help="a study of params.yaml")
    study = parser.parse_args(argv).study
    try:
        write_table(paths.ROOT / "data" / "files" / f"{study}.csv", of_study(study))
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
