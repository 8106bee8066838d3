"""Run notebooks and keep what they show: python -m notebooks.run [NAME…].

NAME is that of a file, without .ipynb; without one, all are run. Whoever changes a code cell does
it again: a test compares the code with that of the latest run. What a notebook prints and draws is
kept in its file, small: no progress bars, no names of temporary folders, pictures of at most 60 kB.
The picture of the cell with the tag `cover` is the one that the notebook opens with.
"""

import argparse
import base64
import hashlib
import io
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.ipynb"))
HANGS = 900  # seconds of a cell
MOST_BYTES = 60_000  # of a picture
COVER = 720, 400  # pixels at most
PROGRESS = re.compile(r"\d+%\||\d (running|waiting|done)")  # tqdm's bars, lines of ablate
CHANGING = {  # what is another in each run → what is kept of it
    r"/\S*/tmp\w{8}(?=[/\s]|$)": "FOLDER",
    r"\b20\d{6}-\d{6}\b": "DATE-TIME",
    re.escape(sys.executable): "python",
}


def code_hash(notebook: NotebookNode) -> str:
    """Return the SHA-256 of a notebook's code cells."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def is_progress(output: NotebookNode) -> bool:
    """Tell whether an output is a progress bar, or a line that is out of date soon."""
    return output.get("name") == "stderr" and bool(PROGRESS.search(output.text))


def kinds(cell: NotebookNode) -> set[str]:
    """Return what a code cell shows: text, picture, markdown; progress bars are nothing."""
    found = set()
    for output in cell.outputs:
        if output.output_type == "stream":
            found |= {"text"} if output.text.strip() and not is_progress(output) else set()
        elif {"image/png", "image/jpeg"} & output.data.keys():
            found.add("picture")
        else:
            found.add("markdown" if "text/markdown" in output.data else "text")
    return found


def small_picture(png: bytes) -> tuple[str, bytes]:
    """Return a picture of at most MOST_BYTES and its type: the PNG, or else a JPEG of it."""
    if len(png) <= MOST_BYTES:
        return "image/png", png
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    while True:
        for quality in (85, 75, 65):
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=quality, optimize=True)
            if stream.tell() <= MOST_BYTES:
                return "image/jpeg", stream.getvalue()
        picture = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5))


def small_outputs(cell: NotebookNode) -> list[NotebookNode]:
    """Return the outputs of a code cell to keep: one text of all that is printed, and results."""
    printed, results = "", []
    for output in cell.outputs:
        if output.output_type == "stream":
            printed += "" if is_progress(output) else output.text
            continue
        if "image/png" in output.data:
            kind, content = small_picture(base64.b64decode(output.data["image/png"]))
            data = {kind: base64.b64encode(content).decode()}
        else:
            data = {kind: unchanging(text) for kind, text in output.data.items()}
        results.append(NotebookNode({**output, "data": NotebookNode(data), "metadata": {}}))
    printed = unchanging(printed.strip("\n"))
    texts = [nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []
    return [*texts, *results]


def unchanging(text: str) -> str:
    """Return a text without what is another in each run."""
    for pattern, kept in CHANGING.items():
        text = re.sub(pattern, kept, text)
    return text


def run(name: str) -> None:
    """Run a notebook, and write it with what it shows."""
    path = HERE / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    start, before = time.monotonic(), os.times()
    NotebookClient(
        notebook,
        timeout=HANGS,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": HERE}},
    ).execute()
    seconds, after = time.monotonic() - start, os.times()
    processor = sum(after[2:4]) - sum(before[2:4])
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = small_outputs(cell)
        if "cover" in cell.metadata.get("tags", []):
            _cover(name, cell)
    notebook.metadata.language_info = {"name": "python"}  # without a version
    notebook.metadata.deeplab_lit = {"code_sha256": code_hash(notebook)}
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    print(f"{name}: {seconds:.0f} s, {processor:.0f} s of processor time", flush=True)


def _cover(name: str, cell: NotebookNode) -> None:
    """Write the picture that a cell shows as the one that its notebook opens with."""
    data = next(o.data for o in cell.outputs if "data" in o)
    content = base64.b64decode(data.get("image/jpeg") or data["image/png"])
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.thumbnail(COVER)
    picture.save(HERE / f"pictures/{name}.jpg", quality=80, optimize=True)


def main() -> None:
    """Run the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    names = parser.parse_args().names
    unknown = set(names) - {*NAMES}
    if unknown:
        parser.error(f"no notebook is called {', '.join(sorted(unknown))}: {', '.join(NAMES)}")
    for name in names or NAMES:
        run(name)


if __name__ == "__main__":
    main()
