"""The tiny study of the whole-pipeline tests, and a copy of the repository that holds it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from lib.core import paths

LOSSES = ["triplet", "normalized_softmax"]
ARMS = ["base", "bgaugment", "blackaugment"]
# The third arm is one entry in the clone, and nothing else.
ENTRY = """
ARMS["blackaugment"] = Arm(
    "BlackAugment", replaced(lambda batch: torch.zeros_like(batch.images)), "random_background"
)
"""
TINY = {
    "data": {
        "dataset": "rendered", "side": 72, "backgrounds": "rendered", "background_count": 6,
        "options": {"seed": 0, "bias": 0.9, "test_bias": 0.9, "images_per_class": 4, "side": 80,
                    "classes": {"train": 4, "val": 2, "test": 6}},
    },
    "masks": {"source": "true"},
    "train": {
        "losses": LOSSES, "arms": ARMS, "seeds": [0],
        "trunk": "efficientnet_lite0", "embedding": 16, "image_size": 64, "optimiser": "adamw",
        "lr_trunk": 1e-4, "lr_head": 1e-3, "lr_loss": 1e-2, "weight_decay": 1e-4, "batch": 8,
        "iterations": 2, "epochs": 1, "patience": 1, "precision": "f32",
    },
    "shift": {
        "conditions": ["clean", "random_background", "unshared_background",
                       "same_class_background", "other_class_background", "own_background",
                       "foreground_only", "background_only"],
        "draws": 2, "draws_control": 1, "mask_variants": ["eroded"],
    },
    "attention": {"images": 6, "copies": 2, "noise": 0.15, "seed": 0, "images_methods": 6,
                  "images_checks": 6, "copies_levels": [1, 2], "noise_levels": [0.15, 0.3],
                  "methods": ["smoothgrad/distance_to_black", "gradient/distance_to_black",
                              "grad_cam/similarity_to_nearest"]},
    "remedies": {"conditions": ["clean", "random_background"], "arms": ["base"], "classes": 4,
                 "remedies": ["cut_out", "box_crop", "late_mask"], "mask_source": "u2netp@160"},
}  # fmt: skip
MEASURING = ["data", "masks", "mask_summary", "train", "shift", "attention", "remedies"]
TELLING = [
    "page_data",
    "page_masks",
    "page_train",
    "page_shift",
    "page_attention",
    "page_report",
    "page_remedies",
]


class Clone:
    """A copy of the repository with one tiny study."""

    def __init__(self, root: Path):
        self.root, self.reports = root, root / "reports" / "tiny"
        for name in tracked():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(paths.ROOT / name, target)
        self.append("lib/training/arms.py", ENTRY)
        self.set()
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        self.commit("code")

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run([*git, "add", "-A"], cwd=self.root, check=True)
        subprocess.run([*git, "commit", "-qm", message], cwd=self.root, check=True)

    def append(self, name: str, text: str) -> None:
        """Add text to a file of the clone."""
        with open(self.root / name, "a", encoding="utf-8") as stream:
            stream.write(text)

    def set(self, **changes: dict) -> None:
        """Write params.yaml with `section={key: value}` changed."""
        study = {part: {**values, **changes.get(part, {})} for part, values in TINY.items()}
        content = {"run": ["tiny"], "studies": {"tiny": study}}
        (self.root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def environment(self) -> dict[str, str]:
        """The environment of a command in the clone, as make sets it."""
        made = {
            **os.environ, "OMP_NUM_THREADS": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONHASHSEED": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        made.pop("PYTHONPATH", None)
        return made

    def repro(self, *targets: str, **more: str) -> list[str]:
        """Run `dvc repro` as make does; the names of the stages that ran, but for `files`.

        That one runs every time. `--dry` among the targets: those that would run. `more` are
        variables of the environment.
        """
        environment = self.environment() | more
        subprocess.run([sys.executable, "-m", "lib.run.check_studies"], cwd=self.root, check=True)
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", *targets],
            cwd=self.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        lines = done.stdout.splitlines()
        ran = [line.split("'")[1] for line in lines if line.startswith("Running stage")]
        return [name for name in ran if not name.startswith("files@")]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put back results, lock and code after the block, so that nothing has to run again."""
        kept = ("data/models", "reports", "dvc.lock", "params.yaml", "lib")
        with tempfile.TemporaryDirectory() as folder:
            for number, name in enumerate(kept):
                _copied(self.root / name, Path(folder) / str(number))
            yield
            for number, name in enumerate(kept):
                _copied(Path(folder) / str(number), self.root / name)

    def bytes_of(self, *patterns: str) -> dict[str, bytes]:
        """Content of all files that match, by name."""
        files = [file for pattern in patterns for file in self.root.glob(pattern)]
        return {str(file.relative_to(self.root)): file.read_bytes() for file in sorted(files)}


def _copied(source: Path, target: Path) -> None:
    """`target` is what `source` is: a file, or a folder and nothing else in it."""
    if source.is_file():
        shutil.copy2(source, target)
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def tracked() -> list[str]:
    """Files of the repository as they are now, without results."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    made = ("reports/", "dvc.lock", "pipelines/dial/dvc.lock")
    kept = [name for name in listed.stdout.splitlines() if not name.startswith(made)]
    return [name for name in kept if (paths.ROOT / name).is_file()]


def stages(*names: str) -> list[str]:
    """The names of stages of the tiny study, as DVC gives them; the front page last."""
    return [f"{name}@tiny" for name in names] + ["index"]
