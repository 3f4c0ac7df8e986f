"""Where everything lives. Every other module asks here; none builds a path of its own."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "lib"
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"
PARAMS = ROOT / "params.yaml"
RAW = ROOT / "data" / "raw"
WEIGHTS = ROOT / "data" / "weights"
TEMPLATES = ROOT / "data" / "weights" / "openvino"  # graphs of trunks, without weights
FACTS = ROOT / "data" / "facts"


@dataclass(frozen=True)
class StudyPaths:
    """The folders of one study."""

    study: str

    @property
    def prepared(self) -> Path:
        """Pixel store, index table and background pools (written by lib.data)."""
        return ROOT / "data" / "prepared" / self.study

    @property
    def masks(self) -> Path:
        """Soft masks in the store's geometry (written by lib.masks)."""
        return ROOT / "data" / "masks" / self.study

    @property
    def models(self) -> Path:
        """One folder per loss with weights and history (written by lib.training)."""
        return ROOT / "data" / "models" / self.study

    @property
    def measured(self) -> Path:
        """Compact tables of what was measured (in git): all that the pages 04 to 06 read."""
        return REPORTS / self.study / "measured"

    @property
    def scratch(self) -> Path:
        """Half-done work that a killed run resumes from; safe to delete."""
        return ROOT / "data" / "scratch" / self.study

    @property
    def reports(self) -> Path:
        """Executed notebooks, HTML, tables and figures."""
        return REPORTS / self.study
