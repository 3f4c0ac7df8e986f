"""The exceptions whose text is written for the person who runs the study."""


class StudyError(Exception):
    """Something is missing or wrong; the message names it and says what to do."""


class DamagedFile(StudyError, ValueError):
    """A file does not hold what was written to it; the message names it and says what to do."""
