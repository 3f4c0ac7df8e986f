"""How numbers are written in sentences."""


def rounded(value: float, digits: int = 1, sign: str = "") -> str:
    """`value` with so many digits, one more where it would read as zero and is not.

    So the reader sees on which side of zero the end of an interval lies. `sign` "+" writes the
    sign of positive numbers, too.
    """
    digits += round(value, digits) == 0 and round(value, digits + 1) != 0
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no -0.0
