"""How a study was made: when, how long, on what, from which code and data (its run.json)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.core.errors import StudyError
from lib.core.files import read_json


@dataclass(frozen=True)
class Made:
    """What the front page says of the runs behind a study.

    `rows` holds, a page each: stem, when finished, minutes, commit, fingerprint of the code (empty
    where it was not noted). `machines` are the machines in words, each once; `data` names the
    fingerprints of the stores that the last page was made from.
    """

    rows: list[tuple[str, str, float, str, str]]
    machines: list[str]
    data: dict[str, str]

    @property
    def minutes(self) -> float:
        """Of all pages together; work kept from an earlier run took no time."""
        return sum(row[2] for row in self.rows)

    @property
    def day(self) -> str:
        """When the last page was finished."""
        return max(row[1] for row in self.rows)[:10]


def machine_in_words(machine: dict[str, Any]) -> str:
    """`2 cores (AMD EPYC), 25 GB of memory, no GPU, Linux, Python 3.11.7, torch 2.15.0`."""
    packages = machine.get("packages", {})
    words = [
        f"{machine.get('cores')} cores ({machine.get('processor') or 'unknown processor'})",
        f"{machine['memory_gb']} GB of memory" if machine.get("memory_gb") else "",
        machine.get("gpu") or "no GPU",
        machine.get("system", ""),
        f"Python {machine['python']}" if machine.get("python") else "",
        f"torch {packages['torch']}" if "torch" in packages else "",
    ]
    return ", ".join(word for word in words if word)


def read(folder: Path, stems: list[str]) -> Made | None:
    """The runs that wrote the pages `stems` of a study's folder; None where none was noted."""
    try:
        noted = read_json(folder / "run.json")
        runs = {stem: noted[stem] for stem in stems if stem in noted}
        rows = [
            (
                stem,
                run["finished"],
                run["seconds"] / 60,
                run.get("commit") or "",
                run.get("code", ""),
            )
            for stem, run in runs.items()
        ]
        machines = dict.fromkeys(machine_in_words(run["machine"]) for run in runs.values())
    except (OSError, StudyError, KeyError, TypeError, AttributeError):  # absent, or another file
        return None
    data = [run["data"] for run in runs.values() if run.get("data")]
    return Made(rows, list(machines), data[-1] if data else {}) if rows else None
