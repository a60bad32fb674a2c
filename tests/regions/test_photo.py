"""Photos of every kind, whole and damaged."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ureca_lib.regions import (
    FileMissingError,
    ImageUnreadableError,
    RegionError,
    SizeMismatchError,
    load_image,
)
from ureca_lib.regions import photo as photos
from ureca_lib.regions.photo import check_photo

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (12, 16, 3), np.uint8)
SMOOTH = np.repeat(np.linspace(0, 255, 16, dtype=np.uint8)[None], 12, axis=0)  # (12, 16)


def read(tmp_path, image: Image.Image, name: str = "x.png", **options) -> np.ndarray:
    """The image, saved and read."""
    image.save(tmp_path / name, **options)
    return assert_rgb(load_image(tmp_path / name))


def assert_rgb(found: np.ndarray) -> np.ndarray:
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
    return found


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """A PNG file, byte by byte; `kind` 0 is grey, 2 RGB, 4 grey and alpha."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# kinds of pixels


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.tif"])
def test_rgb_is_read_as_it_is(tmp_path, name):
    assert (read(tmp_path, Image.fromarray(PIXELS), name) == PIXELS).all()
    assert (load_image(str(tmp_path / name)) == PIXELS).all()


@pytest.mark.parametrize(("name", "options"), [("x.jpg", {"quality": 95}), ("x.webp", {})])
def test_lossy_files_are_read(tmp_path, name, options):
    found = read(tmp_path, Image.fromarray(SMOOTH), name, **options)
    assert np.abs(found.astype(int) - SMOOTH[..., None]).max() <= 8


def test_transparent_pixels_lie_on_white(tmp_path):
    rgba = np.dstack([PIXELS, np.full((12, 16), 255, np.uint8)])
    rgba[0, 0, 3], rgba[0, 1] = 0, (0, 0, 0, 128)
    found = read(tmp_path, Image.fromarray(rgba))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 1].tolist() == [127, 127, 127]
    assert (found[1:] == PIXELS[1:]).all()


def test_grey_with_alpha(tmp_path):
    array = np.dstack([SMOOTH, np.full((12, 16), 255, np.uint8)])
    array[3, 3, 1] = 0
    found = read(tmp_path, Image.fromarray(array))
    assert Image.open(tmp_path / "x.png").mode == "LA"
    expected = SMOOTH.copy()
    expected[3, 3] = 255
    assert (found == expected[..., None]).all()


@pytest.mark.parametrize("transparent", [None, 1, bytes([255, 0, 255])])
def test_palettes_with_and_without_transparency(tmp_path, transparent):
    image = Image.fromarray((SMOOTH // 100).astype(np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    options = {} if transparent is None else {"transparency": transparent}
    found = read(tmp_path, image, **options)
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    if transparent is not None:
        colours[1] = 255
    assert (found == colours[SMOOTH // 100]).all()


def test_a_transparent_colour_of_rgb_and_grey(tmp_path):
    pixels = PIXELS.copy()
    pixels[5, 5] = (1, 2, 3)
    found = read(tmp_path, Image.fromarray(pixels), transparency=(1, 2, 3))
    assert found[5, 5].tolist() == [255, 255, 255] and (found[0] == pixels[0]).all()
    found = read(tmp_path, Image.fromarray(SMOOTH), transparency=0)
    assert found[0, 0].tolist() == [255, 255, 255] and found[0, 1, 0] == SMOOTH[0, 1]


def test_grey_and_one_bit(tmp_path):
    assert (read(tmp_path, Image.fromarray(SMOOTH)) == SMOOTH[..., None]).all()
    found = read(tmp_path, Image.fromarray(SMOOTH > 99))
    assert Image.open(tmp_path / "x.png").mode == "1"
    assert (found == (SMOOTH > 99)[..., None] * 255).all()


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
@pytest.mark.parametrize("brightest", [65535, 2570, 255])
def test_16_bit_grey_has_one_scale_however_dark(tmp_path, name, brightest):
    values = np.linspace(0, brightest, 12 * 16).reshape(12, 16).astype(np.uint16)
    found = read(tmp_path, Image.fromarray(values), name)
    assert np.abs(found - values[..., None] / 257).max() <= 0.5


def test_16_bit_colours_and_16_bit_alpha(tmp_path):
    values = np.array([[65535, 0, 32896], [257, 25700, 65280]], ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values[:, None].repeat(2, axis=1))
    (tmp_path / "x.png").write_bytes(png(2, 2, 16, 2, rows))
    found = assert_rgb(load_image(tmp_path / "x.png"))
    assert np.abs(found.astype(int) - (values / 257)[:, None]).max() <= 1
    grey_alpha = b"\0" + struct.pack(">HHHH", 65535, 65535, 25700, 65535)
    (tmp_path / "x.png").write_bytes(png(2, 1, 16, 4, grey_alpha))
    assert np.abs(load_image(tmp_path / "x.png")[0, :, 0].astype(int) - [255, 100]).max() <= 1


def test_cmyk(tmp_path):
    image = Image.fromarray(np.repeat(SMOOTH[..., None], 3, axis=2)).convert("CMYK")
    found = read(tmp_path, image, "x.jpg", quality=95)
    assert Image.open(tmp_path / "x.jpg").mode == "CMYK"
    assert np.abs(found.astype(int) - SMOOTH[..., None]).max() <= 8


def test_an_animation_shows_its_first_frame(tmp_path):
    frames = [Image.new("P", (16, 12), value) for value in (1, 2)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 9, 99, 199, 255, 0, 0])
    found = read(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
    assert Image.open(tmp_path / "x.gif").n_frames == 2
    assert (found == [9, 99, 199]).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0, 100, 200], [0, 100, 200]),
        ([0, 257, 65535], [0, 1, 255]),
    ],
)
def test_float_tiffs_are_scaled_by_the_range_they_fit(tmp_path, values, expected):
    image = Image.fromarray(np.array([values], np.float32))
    assert read(tmp_path, image, "x.tif")[0, :, 0].tolist() == expected


def test_float_tiffs_with_nan_and_negative_values(tmp_path):
    image = Image.fromarray(np.array([[np.nan, -3.0, 1.0]], np.float32))
    assert read(tmp_path, image, "x.tif")[0, :, 0].tolist() == [0, 0, 255]


def test_a_pixel_is_enough(tmp_path):
    assert read(tmp_path, Image.new("RGB", (1, 1), "red")).tolist() == [[[255, 0, 0]]]


# rotation

MARKED = np.zeros((12, 16, 3), np.uint8)
MARKED[0, 0], MARKED[0, 15], MARKED[11, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SHOWN = {  # orientation -> how the stored pixels are shown (EXIF 2.32, 4.6.4)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_every_exif_orientation(tmp_path, orientation, name):
    options = {"lossless": True, "exact": True} if name == "x.webp" else {}
    image = Image.fromarray(MARKED)
    found = read(tmp_path, image, name, exif=exif(orientation), **options)
    shown = SHOWN[orientation](MARKED)
    assert (found == shown).all()
    assert (load_image(tmp_path / name, expected=shown.shape[:2]) == shown).all()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_of_the_stored_size_get_the_stored_pixels(tmp_path, orientation):
    Image.fromarray(MARKED).save(tmp_path / "x.png", exif=exif(orientation))
    assert (load_image(tmp_path / "x.png", expected=(12, 16)) == MARKED).all()
    shown = SHOWN[orientation](MARKED)
    assert (load_image(tmp_path / "x.png", expected=(16, 12)) == shown).all()
    with pytest.raises(SizeMismatchError, match=r"x.png: the photo is 12 x 16 but .* 13 x 12 \("):
        load_image(tmp_path / "x.png", expected=(12, 13))
    opened = Image.open(tmp_path / "x.png")
    assert (load_image(opened) == shown).all() and (load_image(opened) == shown).all()
    assert (load_image(opened, expected=(12, 16)) == MARKED).all()


def test_16_bit_photos_are_turned_too(tmp_path):
    values = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 257
    found = read(tmp_path, Image.fromarray(values), "x.png", exif=exif(6))
    assert (found[..., 0] == np.rot90(values // 257, -1)).all()


@pytest.mark.parametrize("orientation", [0, 9, 6000])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path, orientation):
    found = read(tmp_path, Image.fromarray(MARKED), exif=exif(orientation))
    assert (found == MARKED).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "data", [b"", b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_damaged_exif_does_not_hide_the_pixels(tmp_path, data):
    assert (read(tmp_path, Image.fromarray(MARKED), "x.png", exif=data) == MARKED).all()
    image = Image.fromarray(SMOOTH)
    assert read(tmp_path, image, "x.jpg", exif=data).shape == (12, 16, 3)


# arrays and images


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (PIXELS, PIXELS),
        (PIXELS[..., :1], PIXELS[..., :1]),
        (SMOOTH, SMOOTH[..., None]),
        (SMOOTH > 99, (SMOOTH > 99)[..., None] * 255),
        (SMOOTH.astype(np.uint16) * 257, SMOOTH[..., None]),
        (PIXELS / 255, PIXELS),
        ((PIXELS / 255).astype(np.float16), PIXELS),
        (np.asfortranarray(PIXELS)[::-1], PIXELS[::-1]),
    ],
)
def test_arrays_of_every_kind(array, expected):
    found = assert_rgb(load_image(array))
    assert found.shape == (12, 16, 3) and (found == expected).all()
    found[:] = 1
    assert array.max() > 1 or array.dtype.kind in "fb"  # a copy


def test_an_array_with_alpha_lies_on_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0, 3] = 255
    assert load_image(rgba)[..., 0].tolist() == [[0, 255], [255, 255]]
    assert load_image(rgba / 255)[..., 0].tolist() == [[0, 255], [255, 255]]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((12, 16, 2), np.uint8), "an image array is"),
        (np.zeros((3, 12, 16), np.uint8), "an image array is"),
        (np.zeros((1, 12, 16, 3), np.uint8), "an image array is"),
        (np.zeros(12, np.uint8), "an image array is"),
        (np.zeros((0, 16, 3), np.uint8), "an image array is"),
        (np.zeros((12, 16, 3), np.int64), "uint8, uint16, bool, or float .*int64"),
        (np.zeros((12, 16, 3), object), "uint8, uint16, bool, or float .*object"),
        (PIXELS.astype(float), "between 0 and 1"),
        (np.full((2, 2), np.nan), "between 0 and 1"),
        (np.full((2, 2), -0.1), "between 0 and 1"),
        (PIXELS.tolist(), "a photo is a path, an image or an array, not list"),
        (None, "a photo is a path, an image or an array, not NoneType"),
        (b"x.png", "a photo is a path, an image or an array, not bytes"),
    ],
)
def test_what_is_no_photo_is_named(array, reason):
    with pytest.raises(ImageUnreadableError, match=reason):
        load_image(array)


def test_an_expected_size_is_checked_for_arrays_and_images():
    assert load_image(PIXELS, expected=(12, 16)).shape == (12, 16, 3)
    for photo in (PIXELS, Image.fromarray(PIXELS)):
        with pytest.raises(SizeMismatchError, match=r"the photo is 16 x 12 but .* 12 x 16"):
            load_image(photo, expected=(16, 12))


def test_an_open_image_that_is_truncated_is_named(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    with pytest.raises(ImageUnreadableError, match="cannot be decoded"):
        load_image(Image.open(io.BytesIO(content[: len(content) // 2])))


# damage


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot identify image"),
        (b"This is a text.\n" * 50, "cannot identify image"),
        (b"\xff\xd8\xff", "cannot identify image"),
        (b"\x89PNG\r\n\x1a\n", ""),
        (b"GIF89a", ""),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", ""),
    ],
)
def test_a_file_that_is_no_image_is_named(tmp_path, content, reason):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ImageUnreadableError, match=f"x.jpg: .*{reason}") as caught:
        load_image(tmp_path / "x.jpg")
    assert caught.value.file == str(tmp_path / "x.jpg")


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(FileMissingError, match=r"gone.jpg: the photo does not exist"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageUnreadableError, match=r"cannot be decoded \(.*directory"):
        load_image(tmp_path)
    for name in ("a\0b.png", "x" * 5000):
        with pytest.raises(RegionError):
            load_image(name)


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.gif", "x.tif", "x.bmp", "x.webp"])
def test_a_file_cut_off_anywhere_is_unreadable_or_whole(tmp_path, name):
    image = Image.fromarray(PIXELS)
    image.save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    refused = 0
    for stop in range(0, len(content), 7):
        (tmp_path / name).write_bytes(content[:stop])
        try:
            assert_rgb(load_image(tmp_path / name))
        except ImageUnreadableError as error:
            assert name in str(error)
            refused += 1
    assert refused > 0.9 * len(range(0, len(content), 7))


@pytest.mark.parametrize("mode", ["I;16", "L", "1", "P", "RGBA", "LA"])
def test_half_a_png_is_not_half_a_photo(tmp_path, mode):
    Image.new(mode, (400, 400), 1 if mode != "LA" else (1, 1)).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageUnreadableError, match=r"x.png: the photo cannot be decoded"):
        load_image(tmp_path / "x.png")


def test_half_a_jpeg_is_not_half_a_photo(tmp_path):
    Image.fromarray(np.tile(PIXELS, (20, 20, 1))).save(tmp_path / "x.jpg")
    content = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageUnreadableError, match=r"x.jpg: the photo cannot be decoded"):
        load_image(tmp_path / "x.jpg")


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_damage_is_an_error_of_our_own_or_none(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA"]))
    stream = io.BytesIO()
    Image.fromarray(PIXELS[:4, :4]).save(
        stream, kind, **({"exif": exif(6)} if kind != "BMP" else {})
    )
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "x.img"
    path.write_bytes(content)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as changed:
        warnings.simplefilter("ignore")  # Pillow's remarks on what it skips
        changed.setattr(photos, "MAX_PIXELS", 10_000)
        try:
            found = load_image(path)
        except RegionError as error:
            assert error.file == str(path)
        else:
            assert_rgb(found)


@pytest.mark.parametrize("side", [17_000, 60_000, 2**31 - 1])
def test_a_header_that_claims_too_many_pixels_is_refused_undecoded(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 2, b"\0" * 1000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            ImageUnreadableError, match=r"bomb.png: the photo (has|cannot be decoded)"
        ) as caught:
            load_image(tmp_path / "bomb.png")
    assert type(caught.value) is ImageUnreadableError


def test_a_turned_tiff_passes_the_check_where_it_can_be_read(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "x.tif", exif=exif)
    check_photo(tmp_path / "x.tif", (30, 20))
    assert load_image(tmp_path / "x.tif", expected=(30, 20)).shape == (30, 20, 3)
    for read in (load_image, check_photo):
        with pytest.raises(SizeMismatchError):
            read(tmp_path / "x.tif", (20, 30))


# Pillow warns above 89 million pixels, and refuses twice as many
@pytest.mark.parametrize("size", [(10_000, 9_500), (14_000, 13_000)])
def test_large_photos_below_our_limit_are_read_and_pillows_stays(tmp_path, size):
    Image.new("1", size).save(tmp_path / "x.png")
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings(), pytest.raises(SizeMismatchError):
        warnings.simplefilter("error")
        load_image(tmp_path / "x.png", expected=(5, 5))
    assert before == Image.MAX_IMAGE_PIXELS
