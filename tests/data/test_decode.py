"""Odd pixels become what people see, or a sentence; no decoder's traceback reaches the user."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from lib.core.errors import StudyError
from lib.data import checks, decode

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def kept(path: Path, image: Image.Image, **more) -> np.ndarray:
    image.save(path, **more)
    facts, pixels = checks.look(path, min(image.size))
    assert facts["error"] == ""
    return pixels


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (GREY.astype(np.float32) / 255, GREY),
        (GREY.astype(np.float32), GREY),
        (GREY.astype(np.float32) * 257, GREY),
        (GREY.astype(np.int32) * 257, GREY),
        (GREY.astype(np.uint16) * 257, GREY),
        (GREY.astype(">u2") * 257, GREY),
    ],
)
def test_more_than_eight_bits_are_scaled(tmp_path: Path, values, expected) -> None:
    pixels = kept(tmp_path / "x.tif", Image.fromarray(values))
    np.testing.assert_array_equal(pixels, np.dstack([expected] * 3))


@pytest.mark.parametrize(
    "values",
    [
        np.float32([[-1, 0.5], [0, 1]]), np.float32([[np.nan, 0.5], [0, 1]]),
        np.float32([[0, 1e9], [0, 1]]), np.int32([[0, 2**30], [0, 1]]),
    ],
)  # fmt: skip
def test_values_that_mean_nothing_are_refused(tmp_path: Path, values) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert "how bright they are meant" in checks.look(tmp_path / "x.tif", 2)[0]["error"]
    with pytest.raises(StudyError, match="x.tif cannot be decoded .its values go from"):
        decode.open_image(tmp_path / "x.tif")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_mode_keeps_its_colours(tmp_path: Path, mode: str) -> None:
    colour = (
        (255, 255, 255) if mode == "1" else (90, 90, 90) if mode in ("L", "LA") else (200, 40, 90)
    )
    plain = Image.new("RGB", (6, 5), colour)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        made = ImageCms.profileToProfile(plain, *profiles, outputMode="LAB")
    else:
        made = plain.convert("P").convert("PA") if mode == "PA" else plain.convert(mode)
    if mode == "PA":  # no format keeps it
        pixels = np.asarray(decode.upright(made))
    else:
        pixels = kept(tmp_path / f"x.{'png' if mode in ('LA', 'RGBA') else 'tif'}", made)
    # the web's palette, on which P and PA are drawn, has steps of 51
    np.testing.assert_allclose(pixels[2, 2], colour, atol=30 if mode[0] == "P" else 2)


def exif(orientation: object, resolution: object = None) -> bytes:
    """EXIF with tags of types that they must not have."""

    def entry(tag: int, value: object) -> bytes:
        if isinstance(value, bytes):
            return struct.pack("<HHI4s", tag, 2, 4, value)
        return struct.pack("<HHIi", tag, 9, 1, value)

    tags = [(0x0112, orientation)] + ([(0x011A, resolution)] if resolution is not None else [])
    body = struct.pack("<H", len(tags)) + b"".join(entry(*tag) for tag in tags) + bytes(4)
    return b"Exif\0\0II*\0\x08\0\0\0" + body


@pytest.mark.parametrize(
    ("data", "turned"),
    [
        (exif(6), True), (exif(6, b"abc\0"), True), (exif(6, 0), True), (exif(6, -1), True),
        (exif(b"six\0"), False), (exif(99), False), (exif(0), False), (exif(-1), False),
        (b"Exif\0\0garbage", False), (b"Exif\0\0II*\0\xff\xff\xff\x7f", False),
    ],
)  # fmt: skip
def test_odd_exif_does_not_keep_an_image_from_being_read(
    tmp_path: Path, data: bytes, turned: bool
) -> None:
    Image.new("RGB", (40, 30), (9, 99, 199)).save(tmp_path / "x.jpg", exif=data)
    facts, pixels = checks.look(tmp_path / "x.jpg", 20)
    assert facts["error"] == "" and facts["turned"] is turned
    assert pixels.shape[:2] == ((26, 20) if turned else (20, 26))


def test_every_orientation_is_set_upright(tmp_path: Path) -> None:
    """Against Pillow's own way, on an image without symmetry."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8))
    for number in range(1, 9):
        tags = Image.Exif()
        tags[0x0112] = number
        image.save(tmp_path / "x.png", exif=tags)
        with Image.open(tmp_path / "x.png") as again:
            expected = np.asarray(ImageOps.exif_transpose(again).convert("RGB"))
        np.testing.assert_array_equal(np.asarray(decode.open_image(tmp_path / "x.png")), expected)


def test_a_line_of_pixels_is_no_photograph(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 2)).save(tmp_path / "x.png")
    assert "no photograph" in checks.look(tmp_path / "x.png", 144)[0]["error"]


@pytest.mark.slow
def test_a_hundred_megapixels_are_read(tmp_path: Path) -> None:
    image = Image.new("RGB", (12_000, 8_400), (10, 200, 30))
    pixels = kept(tmp_path / "x.png", image, compress_level=1)
    assert pixels.shape == (8_400, 12_000, 3) and tuple(pixels[17, 4]) == (10, 200, 30)


def seeds() -> dict[str, bytes]:
    """A small image in every format."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (24, 32, 3), np.uint8))
    tags, made = Image.Exif(), {}
    tags[0x0112], tags[0x011A] = 6, 72.0
    kinds = {
        "jpg": "JPEG",
        "png": "PNG",
        "webp": "WEBP",
        "tif": "TIFF",
        "heic": "HEIF",
        "jp2": "JPEG2000",
    }
    for suffix, kind in kinds.items():
        image.save(buffer := io.BytesIO(), kind, **({} if suffix == "jp2" else {"exif": tags}))
        made[suffix] = buffer.getvalue()
    for suffix, kind in {
        "gif": "GIF", "bmp": "BMP", "avif": "AVIF", "ppm": "PPM", "qoi": "QOI", "tga": "TGA",
        "ico": "ICO", "pcx": "PCX", "jp2": "JPEG2000",
    }.items():  # fmt: skip
        image.convert("P" if suffix == "gif" else "RGB").save(buffer := io.BytesIO(), kind)
        made[suffix] = buffer.getvalue()
    image.convert("L").save(buffer := io.BytesIO(), "TIFF", compression="tiff_lzw")
    return made | {"tiff": buffer.getvalue()}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut, doubled or zeroed, mostly in the header."""
    made = bytearray(data)
    end = len(made) if rng.random() < 0.4 else min(len(made), 200)
    for _ in range(rng.integers(1, 9)):
        at = int(rng.integers(0, end))
        made[at] = int(rng.integers(0, 256)) if rng.random() < 0.7 else 0
    if rng.random() < 0.2:
        del made[int(rng.integers(1, len(made))) :]
    if rng.random() < 0.1:
        at = int(rng.integers(0, len(made)))
        made[at:at] = made[max(0, at - 16) : at]
    return bytes(made)


def fuzz(folder: Path, each: int, seed: int) -> int:
    """Look at mutated images; returns how many had a fault, each in words with its name."""
    rng, broken = np.random.default_rng(seed), 0
    for suffix, data in seeds().items():
        file = folder / f"x.{suffix}"
        for _ in range(each):
            file.write_bytes(mutated(data, rng))
            facts, pixels = checks.look(file, 8)
            assert (pixels is None) == (facts["error"] != "")
            if facts["error"]:
                broken += 1
                assert str(folder) not in facts["error"]
                with pytest.raises(StudyError, match=file.name):
                    decode.open_image(file)
            decode.is_image(file)
    return broken


@pytest.mark.filterwarnings("ignore")
def test_mutated_images_have_a_fault_in_words(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 40, seed=0) > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_mutated_images_have_a_fault_in_words(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 600, seed=1) > 1000
