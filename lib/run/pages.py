"""Tell measured studies again: every page and the front pages, from tables in git alone.

    python -m lib.run.pages [study ...] [page ...]

No photographs and no weights are needed. By default every study that has measured tables, and of
each every page of which everything is measured; `04_shift` names a page.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.hardware import workers
from lib.core.progress import say
from lib.evaluation import measured
from lib.experiments import bias_dose
from lib.front import front_page

# A page, and the folders of measured tables without which it is left out
PAGES = {
    "01_data": ["data"],
    "02_masks": ["masks"],
    "03_train": ["data", "evaluation"],
    "04_shift": ["evaluation"],
    "05_attention": ["evaluation", "attention"],
    "06_report": ["evaluation"],
    "07_remedies": ["evaluation", "remedies"],
    "08_dial": ["dial"],
    "10_catalogue": ["evaluation", "catalogue"],
}
BY_THEMSELVES = ("08_dial", "10_catalogue")  # pages that no other leads to
ALONE = dict.fromkeys(BY_THEMSELVES, ["--previous", "", "--next", ""])


def known() -> list[str]:
    """The studies under reports/ that have measured tables."""
    found = [*paths.REPORTS.glob("*/measured/evaluation/study.json")]
    found += paths.REPORTS.glob("*/measured/dial/dial.json")
    return sorted(file.parents[2].name for file in found)


def pages_of(study: str) -> list[str]:
    """The pages of which everything is measured; a study that is not measured raises."""
    alone = params.ALONE in params.study(study)
    if not (bias_dose.Measured(study) if alone else measured.read(study)).facts:
        raise StudyError(f"study {study} has not been measured so far.")
    there = paths.StudyPaths(study).measured
    return [page for page, needed in PAGES.items() if all((there / n).is_dir() for n in needed)]


def tell(study: str, pages: list[str]) -> int:
    """Execute pages of a study; what the first process that failed returned, or 0."""
    together = [page for page in pages if page not in ALONE]
    runs = [together, *([page, *ALONE[page]] for page in pages if page in ALONE)]
    for run in filter(None, runs):
        command = [sys.executable, "-m", "lib.execute", *run, "--study", study]
        if code := subprocess.run(command, cwd=paths.ROOT, check=False).returncode:
            return code
    say(f"{study}: {len(pages)} pages told")
    return 0


def main(argv: list[str]) -> int:
    """The command line: studies side by side, as many as there are cores.

    Returns 0, 2 (wrong input), or what the first study with a page that failed returned.
    """
    only = [name for name in argv if name in PAGES]
    studies = [name for name in argv if name not in PAGES] or known()
    if not studies:
        say("No study has measured tables so far: `make repro` makes those of the demo.")
    try:
        pages = {study: pages_of(study) for study in studies}
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    studies = sorted(studies, key=lambda study: -len(pages[study]))  # the longest first
    wanted = [[page for page in pages[s] if not only or page in only] for s in studies]
    with ThreadPoolExecutor(workers()) as pool:
        codes = list(pool.map(tell, studies, wanted))
    return next(filter(None, codes), 0) or front_page.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
