"""Single pictures of every format, as cameras, phones and Pillow write them, against Pillow's own reading."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("PIL")

from PIL import Image, ImageOps, features  # noqa: E402

from anymodal.errors import MediaError  # noqa: E402
from anymodal.media import StreamSpec, open_media, probe  # noqa: E402
from anymodal.testing import gradient_frame  # noqa: E402

ORIENTATION = 0x0112
AVIF = pytest.param("a.avif", {"quality": 95}, marks=pytest.mark.skipif(not features.check("avif"), reason="no AVIF here"))


def picture(width: int = 640, height: int = 480) -> Image.Image:
    """With noise: what compresses to almost nothing is no test of how a file is told."""
    noise = np.random.default_rng(0).integers(-12, 12, (height, width, 3))
    return Image.fromarray(np.clip(gradient_frame(width, 0, height).astype(int) + noise, 0, 255).astype(np.uint8))


def read(path) -> list[np.ndarray]:
    with open_media(path, {"video": StreamSpec("video", 4, None)}) as source:
        found = [packet.data for packet in source]
        assert source.warnings == []
    return found


def assert_like_pillow(path, most: float) -> None:
    """The first frame is what Pillow reads, upright, but for `most` levels on average."""
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    found = read(path)[0].astype(int)
    assert found.shape == expected.shape and np.abs(found - expected).mean() <= most


@pytest.mark.parametrize(("name", "options"), [
    ("a.jpg", {}), ("a.JPEG", {"format": "JPEG", "quality": 95, "progressive": True}), ("a.jpe", {"format": "JPEG"}),
    ("a.png", {}), ("a.webp", {}), ("a.webp", {"lossless": True}), ("a.bmp", {}), ("a.tiff", {}), ("a.gif", {}),
    ("a.tif", {"compression": "tiff_lzw"}), ("a.ppm", {}), AVIF,
    ("what?.jpg", {}), ("a%03d.jpg", {}), ("a%03d.png", {}), ("w?.webp", {}), ("a{1}.bmp", {}),
])
@pytest.mark.parametrize("size", [(640, 480), (1921, 1081)])
def test_a_picture_is_read_whatever_it_is_called(tmp_path, name, options, size):
    picture(*size).save(tmp_path / name, **options)
    assert_like_pillow(tmp_path / name, 4.0)
    assert probe(tmp_path / name).is_image or name == "a.gif"


@pytest.mark.parametrize(("name", "options"), [
    ("a.jpg", {"quality": 95}), ("a.png", {}), ("a.webp", {"lossless": True}), ("a.tiff", {}), AVIF,
])
def test_a_picture_is_turned_upright_by_its_exif(tmp_path, name, options):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        picture(64, 48).save(tmp_path / name, exif=exif, **options)
        assert_like_pillow(tmp_path / name, 4.0)


def test_exif_without_an_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert_like_pillow(tmp_path / "a.jpg", 4.0)


def test_a_folder_of_photos(tmp_path):
    for i in range(4):
        picture(640 - 2 * i).save(tmp_path / f"IMG_{i}.jpg", exif=Image.Exif())
    with open_media(tmp_path, {"video": StreamSpec("video", 5, 32)}, folder_rate_hz=5) as source:
        assert len(list(source)) == 4 and source.warnings == []


def test_a_name_is_no_pattern(tmp_path):
    for i in range(3):
        picture().save(tmp_path / f"a{i}.jpg")
    with pytest.raises(MediaError, match="no file"):
        read(tmp_path / "a%d.jpg")
    (tmp_path / "a%d.jpg").write_bytes(b"hello, no picture\n" * 300)
    with pytest.raises(MediaError, match="cannot be opened"):
        read(tmp_path / "a%d.jpg")


def test_a_photo_that_is_cut_short(tmp_path):
    picture().save(tmp_path / "whole.jpg", quality=95)
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "head.jpg").write_bytes(data[:300])
    with pytest.raises(MediaError):
        read(tmp_path / "head.jpg")
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    with open_media(tmp_path / "half.jpg", {"video": StreamSpec("video", 4, 32)}) as source:
        assert len(list(source)) == 1
