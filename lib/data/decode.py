"""Any image file as people see it: upright, RGB, 8 bits. What cannot be is told in words."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from pillow_heif import register_heif_opener

from lib.core.errors import StudyError

register_heif_opener()  # photographs of telephones; Pillow itself reads the others
# Formats of images, not of documents, vectors or measurements. TGA has no mark of its own by which
# it could be told, so that only its suffix counts.
FORMATS = (
    "JPEG", "PNG", "WEBP", "AVIF", "HEIF", "JPEG2000", "TIFF", "GIF", "BMP", "DIB", "PPM", "PSD",
    "QOI", "PCX", "ICO", "SGI",
)  # fmt: skip
PICTURES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".hif", ".jp2",
    ".j2k", ".jpx", ".tif", ".tiff", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pnm", ".tga", ".qoi",
}  # fmt: skip
LONGEST = 32  # long side by short side: beyond, shrinking to a short side would make it huge
ORIENTATION = 0x0112  # EXIF tag
BITS, PHOTOMETRIC, PLANES = 258, 262, 284  # tags of a TIFF; photometric 0: white is zero
REMEDY = "save it with 8 bits a channel"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip

Image.MAX_IMAGE_PIXELS = 125_000_000  # Pillow refuses twice as many, and warns from here on
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def opened(path: Path) -> Image.Image:
    """The image in a file, its pixels not read; what is no image raises whatever Pillow does."""
    return Image.open(path, formats=("TGA",) if path.suffix.lower() == ".tga" else FORMATS)


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its content."""
    try:
        with opened(path):
            return True
    except Exception:  # a decoder raises whatever it likes
        return False


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 2 to 8; 1 (as it is) where the tag is missing, odd or unreadable."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF does not damage the pixels
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def frames(image: Image.Image) -> int:
    """How many frames an image has; 1 where the later ones are damaged (the first is used)."""
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # a decoder raises whatever it likes
        return 1


def upright(image: Image.Image) -> Image.Image:
    """An image as people see it: turned by its EXIF tag, RGB, 8 bits, the first frame.

    Transparent parts are put on white; more than 8 bits are scaled to 8 (Pillow alone would cut
    them off), numbers with a point are taken as 0 to 1 or 0 to 255, whichever they fill.

    Raises:
        ValueError: values of another range, or sides that no photograph has.
    """
    short, long = sorted(image.size)
    if short < 1 or long > LONGEST * short:
        raise ValueError(f"{image.width} x {image.height} pixels: no photograph has such sides")
    turn = TURNS.get(orientation(image))
    if image.mode[0] in "IF":
        image = Image.fromarray(_eight_bits(image))
    elif depth(image) > 8 and _tag(image, PLANES) == 2:
        raise ValueError(f"a TIFF of more than 8 bits in separate planes is not read; {REMEDY}")
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        solid = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(solid, image.convert("RGBA"))
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _tag(image: Image.Image, number: int) -> Any:
    """A tag of a TIFF; None where it is missing, or the image is no TIFF."""
    return getattr(image, "tag_v2", {}).get(number)


def depth(image: Image.Image) -> int:
    """Bits a channel in the file, before its pixels are read (Pillow hands on 8 of RGB's 16)."""
    if bits := _tag(image, BITS):
        return max(np.atleast_1d(bits).tolist())
    if image.mode[0] in "IF":
        return 16  # of JPEG 2000, PNG and PNM: Pillow scales fewer to 16
    tiles = getattr(image, "tile", [])
    args = tiles[0].args if tiles else ()
    raw = args[0] if isinstance(args, tuple) and args else args
    return 16 if isinstance(raw, str) and ";16" in raw else 8


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Grey values of more than 8 bits as uint8."""
    bits, inverted = depth(image), _tag(image, PHOTOMETRIC) == 0
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if math.isnan(low):
        raise ValueError(f"some of its values are no numbers (NaN); {REMEDY}")
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
        top = 2**bits - 1
    elif image.mode == "F":
        top = 1 if high <= 1 else 255
    else:
        top = 255 if high <= 255 else 65535
    if low < 0 or high > top:
        raise ValueError(
            f"its values go from {low:g} to {high:g}, and how bright they are meant is not known "
            f"(numbers with a point: 0 to 1, or 0 to 255); {REMEDY}"
        )
    scaled = np.round(values.astype(np.float32) * np.float32(255 / top)).astype(np.uint8)
    return 255 - scaled if inverted else scaled


def fault(error: Exception, path: Path) -> str:
    """What a decoder raised, in words."""
    text = str(error).replace(str(path), path.name).strip()
    if isinstance(error, UnidentifiedImageError) and path.suffix.lower() in (".tif", ".tiff"):
        return f"{text}: damaged, or its kind of pixels is not read; {REMEDY}"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read: {error.strerror}"
    if isinstance(error, (OSError, SyntaxError, ValueError, EOFError)) and text:
        return text
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, Image.DecompressionBombError):
        return text
    return f"its decoder failed: {type(error).__name__} {text}".strip()


def open_image(path: Path) -> Image.Image:
    """Decode an image to upright RGB; a broken or missing file raises with its name."""
    try:
        with opened(path) as image:
            return upright(image)
    except FileNotFoundError as error:
        raise StudyError(f"{path} is wanted and does not exist. Put it back.") from error
    except Exception as error:  # a decoder raises whatever it likes
        raise StudyError(
            f"{path} cannot be decoded ({fault(error, path)}). Replace or remove it."
        ) from error


def shrunk_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height after the shorter one is brought to `side` (torchvision's rule)."""
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def shrink(image: Image.Image, side: int) -> np.ndarray:
    """Bring the shorter side to `side` with an antialiased bilinear filter; uint8 HxWxC."""
    size = shrunk_size(*image.size, side)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)
