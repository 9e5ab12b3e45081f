"""What a live client sends, base64 and all -> arrays. Sizes are looked at before anything is unpacked.

Shapes: T samples, C axes, H height, W width.
"""

from __future__ import annotations

import base64
import binascii
import io
import math

import numpy as np
from PIL import Image, ImageOps

from actors.gateway.faults import Fault
from actors.gateway.g711 import TABLES, decoded
from anymodal.errors import InputError
from anymodal.media.levels import scaled, to_levels
from anymodal.media.spec import StreamSpec

FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
IMAGES = (*FORMATS, "rgb8")
LEVELS = ("png", "float32")  # what 16-bit pictures come as
ORIENTATION = 0x0112  # EXIF's tag


def unpack(text: str, *, param: str = "data") -> bytes:
    """Raises Fault for what is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Fault(400, "invalid_base64", f"{param} is no base64: {error}", param=param,
                    fix="standard base64 with padding, without line breaks") from None


def unpack_url(url: str) -> bytes:
    """The bytes of a data URL of an image. Raises Fault for any other address: nothing is fetched in a live session."""
    head, comma, rest = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise Fault(400, "invalid_image_url", f"image_url has to be a data URL in base64, found {url!r:.60}",
                    param="image_url", fix="data:image/jpeg;base64,...")
    return unpack(rest, param="image_url")


def picture(data: bytes, size_px: int | None, *, encoding: str | None = None, shape: tuple[int, ...] | None = None,
            most_pixels: int) -> np.ndarray:
    """One frame -> uint8 (H, W, 3) RGB, stretched to size_px x size_px if given. encoding None: any image format taken."""
    if encoding == "rgb8":
        image = Image.fromarray(_shaped(data, shape, np.uint8, 3, most_pixels))
    elif encoding == "float32":
        image = Image.fromarray(_as_grey(_shaped(data, shape, np.float32, 2, most_pixels))).convert("RGB")
    else:
        image = _decoded(data, [FORMATS[encoding]] if encoding else list(FORMATS.values()), size_px, most_pixels)
    if size_px and image.size != (size_px, size_px):
        image = image.resize((size_px, size_px), Image.Resampling.BILINEAR)
    return np.array(image)


def levels(data: bytes, spec: StreamSpec, *, encoding: str | None, shape: tuple[int, ...] | None,
           most_pixels: int) -> np.ndarray:
    """A png of one channel of 16 bits, or float32 in the unit of the spec's level -> uint16 (H, W, 1) of its size."""
    if encoding == "float32":
        values = _shaped(data, shape, np.float32, 2, most_pixels)
    else:
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                if image.width * image.height > most_pixels:
                    raise _too_large(*image.size, most_pixels)
                if not image.mode.startswith("I;16"):
                    raise Fault(400, "invalid_image", f"the png is {image.mode}, one channel of 16 bits is wanted",
                                param="data", fix="send the raw levels, uint16, as a grey png")
                values = np.array(image)
        except Fault:
            raise
        except Exception as error:
            raise _broken(error, ["PNG"]) from None
    try:
        return scaled(to_levels(values, spec.level), spec.size_px)
    except InputError as error:
        raise Fault(400, "invalid_samples", f"the frame {error.message}", param="data", fix=error.fix) from None


def _decoded(data: bytes, formats: list[str], size_px: int | None, most_pixels: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            width, height = image.size
            if width * height > most_pixels:
                raise _too_large(width, height, most_pixels)
            if size_px:
                image.draft("RGB", (2 * size_px, 2 * size_px))  # a JPEG that is far too large is not decoded whole
            upright = ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
            return upright.convert("RGB")
    except Fault:
        raise
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        raise _broken(error, formats) from None


def _broken(error: Exception, formats: list[str]) -> Fault:
    known = " or ".join(formats)
    return Fault(400, "invalid_image", f"the data is no whole {known} image: {str(error) or type(error).__name__:.120}",
                 param="data", fix="encode one frame in one of jpeg, png, webp, rgb8")


def samples(data: bytes, encoding: str, shape: tuple[int, ...] | None, axes: tuple[str, ...]) -> np.ndarray:
    """pcm16, float32, pcmu or pcma -> float32 (T,), or float32 (T, C) for a sensor with axes. Raises Fault."""
    if encoding in TABLES and data:
        return decoded(data, encoding)
    if encoding in IMAGES or (axes and encoding != "float32"):
        wanted = "float32" if axes else "pcm16 or float32"
        raise Fault(400, "invalid_encoding", f"encoding is {encoding}, the stream holds samples", param="encoding",
                    fix=f"send {wanted}")
    dtype = np.dtype("<i2" if encoding == "pcm16" else "<f4")
    columns = len(axes) or 1
    size = dtype.itemsize * columns
    if len(data) == 0 or len(data) % size:
        raise Fault(400, "invalid_length", f"data has {len(data)} bytes, which is no whole number of samples of {size}",
                    param="data", fix=f"{size} bytes a sample, little endian")
    found = np.frombuffer(data, dtype)
    if axes:
        if shape is not None and (len(shape) != 2 or shape[1] != columns or math.prod(shape) != len(found)):
            raise _misshapen(shape, f"[{len(found) // columns}, {columns}]: {', '.join(axes)}")
        found = found.reshape(-1, columns)
    elif shape is not None and (math.prod(shape) != len(found) or len(shape) > 1):
        raise _misshapen(shape, f"[{len(found)}]: sound is mono")
    if encoding == "pcm16":
        return found.astype(np.float32) / 32768
    if not np.isfinite(found).all():
        raise Fault(400, "invalid_samples", "the data holds values that are no numbers", param="data",
                    fix="leave out or fill in what was not measured")
    return found.astype(np.float32)


def _shaped(data: bytes, shape: tuple[int, ...] | None, dtype: type, dims: int, most_pixels: int) -> np.ndarray:
    wanted = "[H, W, 3]" if dims == 3 else "[H, W]"
    if shape is None or len(shape) != dims or (dims == 3 and shape[2] != 3):
        raise _misshapen(shape, wanted)
    if shape[0] * shape[1] > most_pixels:
        raise _too_large(shape[1], shape[0], most_pixels)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size != len(data):
        raise Fault(400, "invalid_length", f"data has {len(data)} bytes, shape {list(shape)} takes {size}", param="data",
                    fix="send the whole frame")
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def _as_grey(values: np.ndarray) -> np.ndarray:
    """Distances or temperatures as a picture: the frame's least is black, its most white, what was not measured black."""
    known = np.isfinite(values)
    low, high = (values[known].min(), values[known].max()) if known.any() else (0.0, 0.0)
    scale = 255.0 / (float(high) - float(low)) if high > low else 0.0
    return np.where(known, (values.astype(np.float64) - float(low)) * scale, 0).astype(np.uint8)


def _too_large(width: int, height: int, most_pixels: int) -> Fault:
    return Fault(400, "image_too_large", f"the frame has {width}x{height} pixels, at most {most_pixels} are taken",
                 param="data", fix="scale it down: the session says the size it wants")


def _misshapen(shape: tuple[int, ...] | None, wanted: str) -> Fault:
    found = "missing" if shape is None else f"{list(shape)[:8]}"
    return Fault(400, "invalid_shape", f"shape is {found}, the stream wants {wanted}", param="shape", fix=f"send {wanted}")
