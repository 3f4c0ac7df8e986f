"""The one exception whose text is written for the person who runs the study."""


class StudyError(Exception):
    """Something is missing or wrong; the message names it and says what to do."""
