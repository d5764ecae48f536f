"""Laws of reading image files: upright, 16 bits by their range, transparency on white; what is no image is told."""

import struct
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torchvision.transforms.functional import center_crop, resize

from dropout_lab.data.image_file import UnreadableImageError, fit, read_image, upright_size

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
TURNED = {  # EXIF's orientation -> what is upright, of an array as it is stored
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def pixels(path):
    return np.asarray(read_image(path))


def grey(path):
    red, green, blue = np.moveaxis(pixels(path), 2, 0)
    assert (red == green).all()
    assert (red == blue).all()
    return red


def tiff(values, bits=16, white_is_zero=False):
    """A grey TIFF of one row, which Pillow can read but not write."""
    if bits == 12:
        data = bytes.fromhex("".join(f"{value:03x}" for value in values) + "0" * (len(values) % 2))
    else:
        data = struct.pack(f"<{len(values)}H", *values)
    tags = {256: len(values), 257: 1, 258: bits, 259: 1, 262: 1 - white_is_zero}
    tags |= {273: 122, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * (122 - 10 - len(entries)) + data


@pytest.mark.parametrize(("suffix", "mode"), [("png", "I;16"), ("tif", "I;16"), ("tif", "I;16B"), ("pgm", "I;16")])
@given(values=arrays(np.uint16, SHAPES))
def test_16_bits_become_8_by_their_range(suffix, mode, values, folder):
    path = folder / f"{mode}.{suffix}"
    stored = values.astype(">u2") if mode == "I;16B" else values
    Image.frombytes(mode, values.shape[::-1], stored.tobytes()).save(path)
    assert (grey(path) == values // 256).all()


@given(values=st.lists(st.integers(0, 4095), min_size=1, max_size=9))
def test_12_bits_become_8_and_white_may_be_zero(values, folder):
    path, values = folder / "bits.tif", np.array(values)
    path.write_bytes(tiff(values, bits=12))
    assert (grey(path)[0] == values // 16).all()
    path.write_bytes(tiff(values * 16, white_is_zero=True))
    assert (grey(path)[0] == 255 - values // 16).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@given(orientation=st.integers(1, 8), shape=SHAPES)
def test_a_photo_is_upright_however_the_camera_was_held_and_so_is_its_size(suffix, orientation, shape, folder):
    stored = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    exif, path = Image.Exif(), folder / f"photo.{suffix}"
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    with Image.open(path) as image:
        decoded = np.asarray(image)
    expected = decoded if suffix == "tif" else TURNED[orientation](decoded)  # which Pillow has turned
    assert (pixels(path) == expected).all()
    assert suffix == "jpg" or (pixels(path) == TURNED[orientation](stored)).all()
    assert upright_size(path) == read_image(path).size


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("notes", [b"", b"MM\0*\0\0\0\x08\0\xff\x01\x12", b"no notes at all"])
def test_damaged_notes_leave_a_photo_as_it_is(notes, suffix, tmp_path):
    stored, path = np.full((4, 7, 3), 200, dtype=np.uint8), tmp_path / f"x.{suffix}"
    Image.fromarray(stored).save(path, exif=b"Exif\0\0" + notes)
    assert (pixels(path) == stored).all()
    assert upright_size(path) == (7, 4)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("1", "png"), ("L", "bmp"), ("P", "png"), ("P", "gif"), ("RGB", "tif"), ("CMYK", "tif"), ("L", "pgm")],
)
def test_every_mode_without_transparency_is_pillows_rgb(mode, suffix, tmp_path):
    stored = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(stored).convert(mode)
    image.save(tmp_path / f"x.{suffix}")
    assert (pixels(tmp_path / f"x.{suffix}") == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_whatever_colour_lies_below(kind, tmp_path):
    image = Image.fromarray(np.array([[[90, 90, 90, 0], [90, 90, 90, 255]]], dtype=np.uint8))
    if kind == "P":
        palette = Image.new("P", (2, 1))
        palette.putpalette([90, 90, 90, 90, 90, 90])
        palette.putpixel((1, 0), 1)
        palette.save(tmp_path / "x.png", transparency=0)
    else:
        image.convert(kind).save(tmp_path / "x.png")
    assert (grey(tmp_path / "x.png") == [[255, 90]]).all()


def test_an_animation_is_its_first_image(tmp_path):
    first, second = Image.new("RGB", (3, 2), "red"), Image.new("RGB", (3, 2), "blue")
    for suffix in ("gif", "tif", "png"):
        first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=[second])
        assert read_image(tmp_path / f"x.{suffix}").getpixel((1, 1)) == (255, 0, 0)


# What cannot be read.


def refusal(path, read=read_image):
    with pytest.raises(UnreadableImageError) as error:
        read(path)
    text = str(error.value)
    assert text.startswith(f"{path} cannot be read as an image: ")
    assert "\n" not in text
    return text.removeprefix(f"{path} cannot be read as an image: ")


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_numbers_without_a_scale_are_refused_with_what_to_save_instead(mode, tmp_path):
    Image.new(mode, (3, 2)).save(tmp_path / "x.tif")
    expected = f"its pixels are of Pillow's mode {mode}; save it as grey or RGB with 8 or 16 bits a channel"
    assert refusal(tmp_path / "x.tif") == expected


def test_what_is_no_image_is_told_with_the_reason(tmp_path):
    path = tmp_path / "x.png"
    assert refusal(path) == "No such file or directory; make it readable, or replace or remove it"
    path.touch()
    assert refusal(path) == refusal(path, upright_size) == "it is empty; replace or remove it"
    path.write_text("<html>")
    assert refusal(path) == "it is of no kind that Pillow knows, or damaged; replace, convert or remove it"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:600])
    assert refusal(path) == "it is damaged or cut off; replace or remove it"


def test_an_image_is_refused_above_pillows_limit_and_read_in_silence_below(tmp_path, monkeypatch):
    Image.new("RGB", (10, 10)).save(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # Pillow warns from there on, and stops at twice as many
        assert read_image(tmp_path / "x.png").size == upright_size(tmp_path / "x.png") == (10, 10)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 49)
        for read in (read_image, upright_size):
            assert refusal(tmp_path / "x.png", read) == "it has more than 98 pixels; make it smaller or remove it"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif"])
@given(data=st.data())
def test_a_damaged_file_is_an_image_or_one_line_and_nothing_else(suffix, data, folder):
    path = folder / f"damaged.{suffix}"
    Image.fromarray(np.arange(120, dtype=np.uint8).reshape(10, 12)).save(path)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (read_image, upright_size):
            try:
                read(path)
            except UnreadableImageError:
                refusal(path, read)


# Sizes.


@given(shape=SHAPES, size=st.integers(1, 12))
def test_a_square_is_torchvisions_resize_of_the_shorter_side_and_centre_crop(shape, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    expected = image if shape == (size, size) else center_crop(resize(image, size), [size, size])
    assert (np.asarray(fit(image, size, size)) == np.asarray(expected)).all()


@pytest.mark.slow
@given(shape=SHAPES, size=SHAPES)
def test_an_image_fills_every_shape(shape, size):
    fitted = fit(Image.new("RGB", shape, "white"), *size)
    assert fitted.size == size[::-1]
    assert fitted.getextrema() == ((255, 255),) * 3
