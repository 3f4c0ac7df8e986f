"""Tables for git: what is written is read again, rounded only where it was asked for, and small."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.core.compact import read_compact, write_compact


def queries(conditions: int, count: int = 3000) -> pd.DataFrame:
    """The same queries, in no order, under every condition."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(count)
    return pd.concat(
        [
            pd.DataFrame({"row": rows, "condition": f"condition {at}", "hit": rng.random() < 0.5})
            for at in range(conditions)
        ]
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"arm": ["base", "bgaugment", "base"], "n": [3, -1, 2**20], "ok": [True, False, True],
         "ratio": [1 / 3, np.nan, 1e-30], "rank": [0.1, 0.2, 0.3], "score": [0.1, 2.5, -7.3]}
    )  # fmt: skip
    write_compact(tmp_path / "one.parquet", table, half=["rank"], exact=["ratio"])
    found = read_compact([tmp_path / "one.parquet"])
    assert found["arm"].tolist() == table["arm"].tolist()
    assert found["n"].tolist() == table["n"].tolist()
    assert found["ok"].tolist() == table["ok"].tolist()
    np.testing.assert_array_equal(found["ratio"], table["ratio"])
    np.testing.assert_array_equal(found["rank"], table["rank"].astype(np.float16))
    np.testing.assert_array_equal(found["score"], table["score"].astype(np.float32))


@pytest.mark.parametrize("columns", [{"arm": []}, {"n": np.zeros(0, int)}, {"x": np.zeros(0)}])
def test_a_table_without_rows(tmp_path: Path, columns: dict) -> None:
    write_compact(tmp_path / "none.parquet", pd.DataFrame(columns))
    found = read_compact([tmp_path / "none.parquet"])
    assert len(found) == 0 and list(found) == list(columns)


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_compact(tmp_path / f"{name}.parquet", queries(3))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_queries_that_recur_under_conditions_cost_little_more(tmp_path: Path) -> None:
    """Sixteen conditions of the same 3,000 rows: not sixteen times the bytes, nor twice."""
    for conditions in (1, 16):
        write_compact(tmp_path / f"{conditions}.parquet", queries(conditions))
    once, often = ((tmp_path / f"{n}.parquet").stat().st_size for n in (1, 16))
    assert often < 2 * once
