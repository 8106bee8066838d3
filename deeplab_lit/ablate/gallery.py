"""The same images under every setting, as a part of report.html."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from deeplab_lit.ablate.pictures import Shown
from deeplab_lit.ablate.table import Row
from deeplab_lit.pictures.masks import VOID_COLOR, palette_image
from deeplab_lit.types import VOID, Classes


def gallery(rows: Sequence[Row], shown: Shown) -> str:
    """A table of pictures, one image a line: image, truth, predictions; above it the colors."""
    titles = ["image", "truth", *(_title(row) for row in rows)]
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    colors = list(shown.classes.values())
    lines = []
    for id, image, truth, masks in shown.samples:
        pictures = [Image.fromarray(image), *(palette_image(m, colors) for m in (truth, *masks))]
        named = [f"image {id}", *(f"{title}, image {id}" for title in titles[1:])]
        line = "".join(f"<td>{_image(*x)}</td>" for x in zip(pictures, named, strict=True))
        lines.append(f"<tr>{line}</tr>")
    legend = " ".join(
        f'<span class="class"><span class="swatch" style="background: rgb{tuple(color)}"></span> '
        f"{escape(name)}</span>&ensp;"
        for name, color in _legend(shown).items()
    )
    return (
        f'<p class="note">{legend}</p><div class="scroll"><table class="pictures">'
        f"<tr>{head}</tr>{''.join(lines)}</table></div>"
        '<p class="note">Predictions of the first seed of each setting, '
        f"{'after' if rows[0].after_crf else 'without'} the CRF.</p>"
    )


def _title(row: Row) -> str:
    return row.label if row.option == "setting" else f"{row.option} {row.label}"


def _legend(shown: Shown) -> Classes:
    """The classes, and void where a mask shows some."""
    void = any(
        (mask == VOID).any() for _, _, truth, masks in shown.samples for mask in (truth, *masks)
    )
    return shown.classes | ({"void": VOID_COLOR} if void else {})


def _image(image: Image.Image, what: str) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape(what)}" src="data:image/png;base64,{data}">'
