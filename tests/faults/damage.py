"""How the fault tests damage a file."""

from pathlib import Path


def flip(file: Path, place: float = 0.5, bit: int = 0) -> None:
    """Turn one bit round at a share (0 to 1) of the file's length; the size stays."""
    data = bytearray(file.read_bytes())
    data[min(int(place * len(data)), len(data) - 1)] ^= 1 << bit
    file.write_bytes(data)
