"""Tell measured studies again: pages 04 to 07 and the front pages, from tables in git alone.

    python -m lib.run.pages [study ...]

No photographs and no weights are needed. By default every study that has measured tables; one
whose tables are of an earlier form is named and left as it is.
"""

import sys

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.progress import say
from lib.evaluation import measured
from lib.execute import notebook
from lib.front import front_page

PAGES = ("04_shift", "05_attention", "06_report", "07_remedies")
OF_ITS_OWN = {"05_attention": "attention", "07_remedies": "remedies"}


def known() -> list[str]:
    """The studies under reports/ that have measured tables."""
    found = sorted(paths.REPORTS.glob("*/measured/evaluation/study.json"))
    return [file.parents[2].name for file in found]


def pages_of(study: str) -> list[str]:
    """The pages of which everything is measured; a study that is not measured raises."""
    params.study(study)
    if not measured.read(study).facts:
        raise StudyError(f"study {study} has not been measured so far.")
    there = paths.StudyPaths(study).measured
    return [name for name in PAGES if (there / OF_ITS_OWN.get(name, "evaluation")).is_dir()]


def main(argv: list[str]) -> int:
    """The command line. Returns 0, or what the first page that failed returned."""
    studies = argv or known()
    if not studies:
        say("No study has measured tables so far: `make repro` makes those of the demo.")
    for study in studies:
        try:
            pages = pages_of(study)
        except StudyError as error:
            print(error, file=sys.stderr)
            return 2
        code = notebook.main([*pages, "--study", study])
        if code:
            return code
    return front_page.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
