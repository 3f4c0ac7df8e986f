"""Write the vectors of any model for any images: a parquet file for one's own use.

    python -m lib.run.embed --model timm:resnet50 --images photographs --out vectors.parquet
    python -m lib.run.embed --model study:demo/triplet/base/0 --conditions clean,background_only

MODEL and IMAGES as in python -m lib.run.audit. One row an image, condition and draw: `path` (below
the folder of the images), `label` (the name of its class), `condition`, `draw`, `vector` (float32,
length 1). With `clean` alone no masks are made. Exit status: 0, 2 (wrong input), 130 (stopped).
"""

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lib.core.errors import StudyError
from lib.core.files import atomic
from lib.core.progress import say, track
from lib.core.stage import in_words, one_at_a_time
from lib.experiments import audit_images
from lib.experiments.audit import Asked, opened
from lib.experiments.audit_search import CLEAN, NONE, PLACES, Pass, Search
from lib.experiments.foreign import Given
from lib.images import conditions as test_conditions
from lib.images.crops import TEST_CROP
from lib.masks import sources
from lib.run.audit import add_flags

TAKEN = ("model", "images", "gallery", "size", "mean", "std", "scale", "bgr", "weights", "masks")
TAKEN += ("backgrounds", "draws", "seed")


def embed(asked: Asked, conditions: tuple[str, ...], out: Path) -> int:
    """Write the vectors of all images, whatever their split; returns the number of rows.

    Args:
        asked: the fields of TAKEN count, the others do not.
        conditions: keys of lib.images.conditions. out: a .parquet file.
    """
    if out.suffix != ".parquet":
        raise StudyError(f"{out} must end in .parquet.")
    for name in conditions:
        test_conditions.get(name)
    if PLACES in conditions:
        raise StudyError(
            f"{PLACES} borrows places from images that are not searched, and here all images are. "
            "other_class_background borrows them from images of other classes."
        )
    bare = set(conditions) == {CLEAN}
    if not bare:
        sources.get(asked.masks)  # an unknown name is refused before images are read
    model = opened(asked.model, Given(**{f.name: getattr(asked, f.name) for f in fields(Given)}))
    for sentence in filter(None, [model.assumed, *model.told]):
        say(sentence)
    found = audit_images.prepare(
        asked.images, asked.gallery, math.ceil(model.size / TEST_CROP), 0,
        "full" if bare else asked.masks, "rendered" if bare else asked.backgrounds, asked.seed,
        searched=False,
    )  # fmt: skip
    for sentence in found.told:
        say(sentence)
    search = Search(found, {"model": model}, model.size, asked.seed)
    runs = [
        Pass("model", name, draw, NONE)
        for name in conditions
        for draw in range(asked.draws if test_conditions.get(name).draws else 1)
    ]
    facts = {"model": model.name, "input": f"{model.size} pixels, {model.normalise}"}
    with one_at_a_time(found.study), atomic(out) as temporary:
        rows = 0
        schema = _schema(model.width).with_metadata(facts)
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in _tables(search, runs, schema):
                writer.write_table(table)
                rows += table.num_rows
    return rows


def _schema(width: int) -> pa.Schema:
    names = {"path": pa.string(), "label": pa.string(), "condition": pa.string()}
    return pa.schema(
        [*names.items(), ("draw", pa.int32()), ("vector", pa.list_(pa.float32(), width))]
    )


def _tables(search: Search, runs: list[Pass], schema: pa.Schema) -> Iterator[pa.Table]:
    index = search.images.scenes.store.index.iloc[search.images.rows]
    for run in track(runs, "embedding passes", len(runs), every=5):
        vectors = search.vectors(run)
        flat = pa.array(vectors.numpy().ravel(), pa.float32())
        columns = [
            pa.array(index["path"], pa.string()), pa.array(index["class_name"], pa.string()),
            pa.array([run.condition] * len(index), pa.string()),
            pa.array([run.draw] * len(index), pa.int32()),
            pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        ]  # fmt: skip
        yield pa.Table.from_arrays(columns, schema=schema)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 2 (wrong input) or 130 (stopped)."""
    parser = argparse.ArgumentParser(prog="python -m lib.run.embed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_flags(parser, TAKEN)
    parser.add_argument("--conditions", default=CLEAN, help="names with commas between")
    parser.add_argument("--out", type=Path, default=Path("vectors.parquet"), help="parquet file")
    given = vars(parser.parse_args(argv))
    names = tuple(name.strip() for name in given.pop("conditions").split(",") if name.strip())
    out = given.pop("out")

    def run() -> int:
        rows = embed(Asked(**given), names or (CLEAN,), out)
        print(f"{rows:,} rows in {out}")
        return 0

    return in_words(run)


if __name__ == "__main__":
    sys.exit(main())
