"""Tables small enough for git: parquet with zstd, floats no longer than they need to be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import atomic
from lib.core.tiles import read_tiles

SHORT = (np.float16, np.float32)


@dataclass(frozen=True)
class Kept:
    """What git holds of one study in one folder of reports/<study>/measured (`part`)."""

    study: str
    part: ClassVar[str] = ""

    @property
    def folder(self) -> Path:
        """Where the tables lie."""
        return paths.StudyPaths(self.study).measured / self.part

    def there(self, name: str) -> Path:
        """The path of a file that must be there; where it is not, the error says what to run."""
        file = self.folder / name
        if not file.exists():
            raise StudyError(
                f"{file} does not exist: study {self.study} has not been measured so far. Run "
                f"`make repro` with `run: [{self.study}]` in params.yaml."
            )
        return file

    def tiles(self, name: str) -> tuple[list[np.ndarray], pd.DataFrame]:
        """A sheet of small pictures and its table."""
        self.there(f"{name}.jpg")
        return read_tiles(self.folder / name)


def write_compact(
    path: Path, table: pd.DataFrame, half: Sequence[str] = (), exact: Sequence[str] = ()
) -> None:
    """Write parquet with zstd: text as categories, floats as float32.

    Columns of `half` as float16; those of `exact` as they are (ties count in tests of signs).
    """
    made = table.reset_index(drop=True)
    for name, kind in made.dtypes.items():
        if name in half:
            made[name] = made[name].astype(np.float16)
        elif kind.kind == "f" and name not in exact:
            made[name] = made[name].astype(np.float32)
        elif kind.kind in "iu":
            made[name] = made[name].astype(np.int32)
        elif kind.kind not in "bf":
            made[name] = made[name].astype("category")
    with atomic(path) as temporary:
        made.to_parquet(temporary, index=False, **_encoding(made))


def _encoding(table: pd.DataFrame) -> dict[str, Any]:
    """Parquet's settings. A column is one page: so zstd finds what recurs in every condition.

    A dictionary for words only: it hides what recurs among numbers. The bytes of short floats lie
    apart, first all high ones (cars' ranks of a query: 619 kB so far, now 251).
    """
    kinds = table.dtypes
    return {
        "compression": "zstd",
        "compression_level": 12,
        "max_rows_per_page": max(len(table), 1),
        "use_dictionary": [n for n, kind in kinds.items() if isinstance(kind, pd.CategoricalDtype)],
        "use_byte_stream_split": [n for n, kind in kinds.items() if kind in SHORT],
    }


def read_compact(files: list[Path]) -> pd.DataFrame:
    """Tables of `write_compact` one below the other: floats as float64, categories as text."""
    table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    for name, kind in table.dtypes.items():
        if isinstance(kind, pd.CategoricalDtype):
            table[name] = table[name].astype(str)
        elif kind.kind == "f":
            table[name] = table[name].astype(float)
    return table
