"""The folder that a command is told to write its results to: one folder, one kind of results."""

import json
from pathlib import Path
from typing import Any

from deeplab_lit.atomic import atomic_write
from deeplab_lit.runs.folder import RunFolderError


def open_results_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Make a folder for a command's results, or go on in one begun with the same settings.

    Args:
        folder: that the user names.
        settings: on which the results depend; kept in settings.json.

    Raises:
        RunFolderError: it holds something else, or cannot be made.
    """
    record = folder / "settings.json"
    settings = json.loads(json.dumps(settings))  # tuples are lists in a file
    if record.is_file():
        try:
            before = json.loads(record.read_text("utf-8")) | {}
        except (OSError, TypeError, ValueError) as error:
            raise RunFolderError(f"{record} is damaged: choose another folder") from error
        changed = [k for k in before | settings if before.get(k) != settings.get(k)]
        if changed:
            raise RunFolderError(
                f"{folder} holds results of other settings ({', '.join(changed)} in {record}): "
                "choose another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} exists and holds something else: choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be made ({error.strerror}): choose another one"
        ) from error
    with atomic_write(record) as place:
        place.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
