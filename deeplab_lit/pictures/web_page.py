"""Web pages in one file, which holds all that it shows: no script, nothing fetched from elsewhere.

web_page.html.j2 has the looks that all pages share, in light and dark, on screens of any width;
parts.html.j2 what several pages are put together from. A page is a template of its own beside the
code that fills it.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from deeplab_lit.pictures.charts import without_font_warnings

MOST_WEBP = 16_383  # pixels of a side


def render(template: Path, context: Mapping[str, Any]) -> str:
    """Return a page; every text in it is escaped.

    In a template the address of a picture is `figure | svg`, `image | png`, `path | png_file`, or
    for photographs `path | webp`.

    Args:
        template: extends web_page.html.j2, and uses nothing that `context` lacks.
        context: name → value in the template.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"svg": _svg, "png": _png, "png_file": _png_file, "webp": _webp}
    return environment.get_template(template.name).render(context)


def draw(figure: Any, kind: str) -> bytes:
    """Return a Matplotlib figure as the content of a file: "svg" or "png"."""
    stream = io.BytesIO()
    with without_font_warnings():
        figure.savefig(stream, format=kind, dpi=120)
    return stream.getvalue()


def _svg(figure: Any) -> str:
    return _address("image/svg+xml", draw(figure, "svg"))


def _png(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return _address("image/png", stream.getvalue())


def _png_file(path: Path) -> str:
    return _address("image/png", path.read_bytes())


def _webp(path: Path) -> str:
    """Return the picture of a file at a quarter of its bytes: lossy, hardly to be seen."""
    with Image.open(path) as picture:
        if max(picture.size) > MOST_WEBP:
            return _png_file(path)
        stream = io.BytesIO()
        picture.convert("RGB").save(stream, "WEBP", quality=88)
    return _address("image/webp", stream.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
