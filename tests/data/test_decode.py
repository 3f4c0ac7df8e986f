"""Odd pixels become what people see, or a sentence; no decoder's traceback reaches the user."""

import io
import struct
from pathlib import Path

import numpy as np
import pandas as pd
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
        (GREY.astype(np.int32), GREY),
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
        np.float32([[0, np.inf], [0, 1]]), np.float32([[0, 256], [0, 1]]),
        np.float32([[0, 4095], [0, 1]]), np.int32([[0, 2**30], [0, 1]]), np.int32([[0, -1]]),
    ],
)  # fmt: skip
def test_values_that_mean_nothing_are_refused(tmp_path: Path, values) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert decode.REMEDY in checks.look(tmp_path / "x.tif", 2)[0]["error"]
    with pytest.raises(StudyError, match="x.tif cannot be decoded .*its values"):
        decode.open_image(tmp_path / "x.tif")


def tiff(data: bytes, bits: list[int], kind: int = 1, photometric: int = 1, planes: int = 1):
    """A TIFF of 4 x 3 pixels; kind of numbers: 1 whole, 2 with a sign, 3 with a point."""
    after = 8 + 2 + 10 * 12 + 4
    several = struct.pack(f"<{len(bits)}H", *bits) if len(bits) > 2 else b""
    start = after + len(several)
    tags = [
        (256, 4, 1, 4), (257, 4, 1, 3), (258, 3, len(bits), after if several else bits[0]),
        (259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 1, start), (277, 3, 1, len(bits)),
        (279, 4, 1, len(data)), (284, 3, 1, planes), (339, 3, 1, kind),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + several + data


def packed(values: np.ndarray) -> bytes:
    """Numbers of 12 bits, two in three bytes, every line beginning with a byte of its own."""
    bits = (values[..., None] >> np.arange(11, -1, -1)) & 1
    return np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


SIXTEEN = np.round(np.linspace(0, 65535, 12)).astype(np.uint16).reshape(3, 4)
TWELVE = np.round(np.linspace(0, 4095, 12)).astype(np.uint16).reshape(3, 4)
RGB16 = np.dstack([SIXTEEN, SIXTEEN[::-1], SIXTEEN[:, ::-1]])


def shown(path: Path, data: bytes) -> tuple[dict, np.ndarray | None]:
    path.write_bytes(data)
    return checks.look(path, 3)


def test_the_bits_that_a_tiff_names_decide(tmp_path: Path) -> None:
    facts, pixels = shown(tmp_path / "x.tif", tiff(packed(TWELVE), [12]))
    np.testing.assert_array_equal(pixels[..., 0], np.round(TWELVE * (255 / 4095)))
    assert facts["bits"] == 12 and not facts["dim"]
    _, pixels = shown(tmp_path / "y.tif", tiff(SIXTEEN.tobytes(), [16]))
    np.testing.assert_array_equal(pixels[..., 0], np.round(SIXTEEN / 257))
    _, pixels = shown(tmp_path / "z.tif", tiff(SIXTEEN.tobytes(), [16], photometric=0))
    np.testing.assert_array_equal(pixels[..., 0], 255 - np.round(SIXTEEN / 257))


def test_colours_of_sixteen_bits_are_scaled_and_counted(tmp_path: Path) -> None:
    data = tiff(RGB16.tobytes(), [16] * 3, photometric=2)
    facts, pixels = shown(tmp_path / "x.tif", data)
    assert np.abs(pixels - RGB16 / 257).max() < 1 and facts["bits"] == 16 and not facts["dim"]
    planes = tiff(RGB16.transpose(2, 0, 1).tobytes(), [16] * 3, photometric=2, planes=2)
    assert decode.REMEDY in shown(tmp_path / "y.tif", planes)[0]["error"]


@pytest.mark.parametrize("name", ["x.tif", "x.png", "colours.tif"])
def test_twelve_bits_in_sixteen_are_told(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "colours.tif":
        file.write_bytes(tiff((RGB16 // 16).tobytes(), [16] * 3, photometric=2))
    else:
        Image.fromarray(TWELVE).save(file)
    facts, _ = checks.look(file, 3)
    table = pd.DataFrame([facts]).assign(path=name, split="train", class_name="a")
    assert {"dim", "deep"} <= set(checks.find_faults(table)["fault"])
    Image.fromarray(TWELVE * 16).save(tmp_path / "whole.png")
    assert not checks.look(tmp_path / "whole.png", 3)[0]["dim"]


@pytest.mark.parametrize("number", [np.float16, np.float64])
def test_a_tiff_that_no_decoder_reads_is_refused_with_a_remedy(tmp_path: Path, number) -> None:
    values = np.linspace(0, 1, 12).astype(number)
    data = tiff(values.tobytes(), [8 * values.itemsize], kind=3)
    error = shown(tmp_path / "x.tif", data)[0]["error"]
    assert "x.tif" in error and decode.REMEDY in error


def test_grey_of_a_portable_map_keeps_its_own_scale(tmp_path: Path) -> None:
    data = b"P5\n4 3\n4095\n" + TWELVE.astype(">u2").tobytes()
    np.testing.assert_allclose(
        shown(tmp_path / "x.pgm", data)[1][..., 0], TWELVE * (255 / 4095), atol=1
    )
    floats = b"Pf\n4 3\n-1.0\n" + np.linspace(0, 1, 12).astype("<f4").tobytes()
    assert shown(tmp_path / "x.ppm", floats)[1].max() == 255


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
