"""Pictures: every file gives the right pixels, or one line that names it."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import smoothinfer as si
from smoothinfer.data import guards
from smoothinfer.data.pictures import decode
from tests.data.conftest import encoded, flat

G = np.random.default_rng(0)
NOISE = Image.fromarray(G.integers(0, 256, (8, 8, 3), np.uint8))
GREY = NOISE.convert("L")
RED, GREEN = (255, 0, 0), (0, 130, 0)


def pixels_of(*contents, others=()):
    pictures = [(f"picture {row}", content) for row, content in enumerate(contents)]
    return decode("pets", pictures, [("other", content) for content in others])


def rgb(image):
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def test_a_palette_is_looked_up():
    pictures = [flat(colour).quantize(2) for colour in (RED, GREEN)]
    pixels = pixels_of(*map(encoded, pictures))
    assert pixels[:, :, 0, 0].tolist() == [[255, 0, 0], [0, 130, 0]]


def test_data_are_colour_if_any_picture_is_in_whatever_split():
    grey, colour = encoded(GREY), encoded(NOISE)
    pixels = pixels_of(grey, colour)
    assert torch.equal(pixels[0], rgb(GREY))
    assert torch.equal(pixels[1], rgb(NOISE))
    assert pixels_of(grey, others=[grey, colour]).shape == (1, 3, 8, 8)
    assert pixels_of(grey, others=[grey]).shape == (1, 1, 8, 8)


def test_sixteen_bits_become_eight_by_rounding():
    values = np.array([[0, 128, 129, 10_000, 40_000, 65_406, 65_407, 65_535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        content = encoded(Image.fromarray(values), kind)
        assert pixels_of(content)[0, 0, 0].tolist() == [0, 0, 1, 39, 156, 254, 255, 255]
        assert pixels_of(content, others=[encoded(NOISE)])[0, :, 0, 3].tolist() == [39] * 3


def test_one_bit_is_black_and_white():
    image = Image.fromarray(np.eye(8) > 0)
    assert image.mode == "1"
    assert torch.equal(pixels_of(encoded(image))[0, 0], 255 * torch.eye(8, dtype=torch.uint8))


def test_transparency_that_hides_nothing_is_dropped():
    for image in (NOISE, GREY):
        clear = image.convert("RGBA" if image.mode == "RGB" else "LA")
        assert torch.equal(pixels_of(encoded(clear)), pixels_of(encoded(image)))
    palette = flat(RED).quantize(2)
    opaque = encoded(palette, transparency=bytes([255, 255]))
    assert pixels_of(opaque)[0, :, 0, 0].tolist() == [255, 0, 0]


def test_colours_of_print_are_turned_into_those_of_a_screen():
    content = encoded(flat(RED, "CMYK"), "TIFF")
    assert pixels_of(content)[0, :, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_picture_is_turned_as_its_exif_data_say(kind):
    wide = Image.new("RGB", (16, 8), RED)
    wide.paste((0, 0, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left side is on top
    pixels = pixels_of(encoded(wide, kind, exif=exif))
    assert pixels.shape == (1, 3, 16, 8)
    assert pixels[0, 2, 2, 4] > 200  # blue above
    assert pixels[0, 0, 13, 4] > 200  # red below


def test_a_photograph_with_a_preview_is_one_picture():
    content = io.BytesIO()
    NOISE.save(content, "MPO", save_all=True, append_images=[NOISE])
    assert pixels_of(content.getvalue()).shape == (1, 3, 8, 8)


def huge_png(width, height):
    """The header of a picture of that size, and next to no content."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def animation():
    content = io.BytesIO()
    flat(RED).save(content, "GIF", save_all=True, append_images=[flat(GREEN)])
    return content.getvalue()


def faint(mode):
    image = NOISE.convert(mode)
    image.putalpha(128)
    return image


PNG = encoded(NOISE)
DAMAGED = {
    "empty": (b"", "empty"),
    "text": (b"oops", "no known kind"),
    "half a PNG": (PNG[: len(PNG) // 2], "cannot be read"),
    "a header alone": (PNG[:20], "cannot be read"),
    "zeros inside": (PNG[:60] + b"\0" * 40 + PNG[100:], "cannot be read"),
    "400 megapixels": (huge_png(20_000, 20_000), "resize"),
    "100 megapixels": (huge_png(10_000, 10_000), "10,000 x 10,000 pixels.*resize"),
    "half transparent": (encoded(faint("RGB")), "transparent"),
    "half transparent grey": (encoded(faint("L")), "transparent"),
    "a transparent colour": (encoded(flat(RED), transparency=RED), "transparent"),
    "a transparent palette": (encoded(flat(RED).quantize(2), transparency=0), "transparent"),
    "transparent 16 bits": (
        encoded(Image.fromarray(np.full((8, 8), 9, np.uint16)), transparency=9),
        "transparent",
    ),
    "several pictures": (animation(), "several pictures"),
    "floats": (encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), "kind 'F'"),
    "32 bits": (encoded(Image.fromarray(np.ones((8, 8), np.int32)), "TIFF"), "kind 'I'"),
    "other colours": (encoded(NOISE.convert("LAB"), "TIFF"), "kind 'LAB'"),
    "another size": (encoded(NOISE.resize((8, 9))), "8x9, the first picture is 8x8"),
    "lying on its side": (encoded(NOISE.resize((9, 8))), "9x8, the first picture is 8x8"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_picture_that_cannot_be_used_is_named_in_one_line(content, message):
    with pytest.raises(si.InputError, match=f"^picture 1 .*{message}") as refused:
        pixels_of(PNG, content)
    assert "\n" not in str(refused.value)
    assert "0x" not in str(refused.value).replace("8x", "").replace("00 x", "")  # no addresses


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_a_part_of_a_picture_is_refused(kind, share):
    whole = encoded(Image.fromarray(G.integers(0, 256, (64, 64, 3), np.uint8)), kind)
    with pytest.raises(si.InputError, match=r"^picture 1 cannot be read"):
        pixels_of(whole, whole[: int(len(whole) * share)])


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 10_000)])
def test_a_first_picture_of_giant_size_is_refused_by_its_header(size):
    with pytest.raises(si.InputError, match=r"^picture 0 .*resize"):
        pixels_of(huge_png(*size))


def test_sizes_that_a_turn_would_make_equal_are_compared_after_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    tall, wide = NOISE.resize((8, 16)), NOISE.resize((16, 8))
    assert pixels_of(encoded(tall), encoded(wide, exif=exif)).shape == (2, 3, 16, 8)
    with pytest.raises(si.InputError, match="16x8, the first picture is 8x16"):
        pixels_of(encoded(tall), encoded(wide))


def test_pictures_larger_than_half_of_the_free_memory_are_refused(monkeypatch):
    monkeypatch.setattr(guards, "free_memory", lambda: 100)
    with pytest.raises(si.InputError, match=r"pets takes .* of memory"):
        pixels_of(PNG)
