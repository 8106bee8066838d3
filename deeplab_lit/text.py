"""Sentences: numbers and lists in them, where they are printed, and no secrets in what is kept."""

import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, TextIO

from deeplab_lit.terminal import colored

GONE = "…"
SECRET = (
    r"[\w.-]*(?:key|token|passw(?:or)?d|pwd|passphrase|secret|credential|auth(?:orization)?"
    r"|bearer|sig(?:nature)?)s?"
)
LOGIN = re.compile(r"(\w+://)[^\s@]+@")
VALUE = r"""["']?(?:(?<=")[^"]+|(?<=')[^']+|[^"'&,}\]\s]+)"""  # in quotes with its spaces
PAIR = re.compile(rf"""(\b{SECRET}["']?\s*[:=]\s*(?=(["']?))){VALUE}""", re.IGNORECASE)
BEARER = re.compile(r"(\bBearer )[\w.~+/=-]+", re.IGNORECASE)


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: "1 image", "2,000 images", "2 classes"."""
    plural = "es" if noun.endswith(("s", "ch")) else "s"
    return f"{number:,} {noun}" + (plural if number != 1 else "")


def first_few(names: Sequence[str]) -> str:
    """Return the first three of many names: "sky, road, car, …"."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def with_short_hashes(text: str) -> str:
    """Return a text with each SHA-256 cut to its first 8 digits, which are enough for people."""
    return re.sub(r"(SHA-256 [0-9a-f]{8})[0-9a-f]{56}", r"\1…", text)


def shared_end(lines: Sequence[str]) -> str:
    """Return the sentences that all of some lines end with, after the ". " before; or ""."""
    behind = [reversed(line.split(". ")[1:]) for line in lines]
    shared = takewhile(lambda ends: len(set(ends)) == 1, zip(*behind, strict=False))
    return ". ".join(reversed([ends[0] for ends in shared]))


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print lines, on the first process of a training only.

    Lightning sets the rank; where it was never imported, there is one process.

    Args:
        lines: to print.
        file: where; None: on stdout.
    """
    from lightning_utilities.core.rank_zero import rank_zero_only  # slow for a list of commands

    if getattr(rank_zero_only, "rank", 0) == 0:
        print(colored("\n".join(lines), file or sys.stdout), file=file, flush=True)


def redacted_words(words: Sequence[str]) -> list[str]:
    """Return a command line without secrets: values of options called so, logins in addresses."""
    clean, before = [], ""
    for word in words:
        is_value = before.startswith("-") and "=" not in before and not word.startswith("--")
        clean.append(GONE if is_value and _is_secret(before) else _redacted_text(word))
        before = word
    return clean


def redacted(value: Any, name: str = "") -> Any:
    """Return a nested configuration without secrets.

    Args:
        value: it, or a part of it.
        name: of that part.
    """
    if isinstance(value, dict):
        return {key: redacted(part, str(key)) for key, part in value.items()}
    if isinstance(value, list):
        return [redacted(part, name) for part in value]
    if isinstance(value, str):
        return GONE if value and _is_secret(name) else _redacted_text(value)
    return value


def _is_secret(name: str) -> bool:
    return re.fullmatch(rf"-*{SECRET}", name, re.IGNORECASE) is not None


def _redacted_text(text: str) -> str:
    text = PAIR.sub(rf"\1\2{GONE}", LOGIN.sub(rf"\1{GONE}@", text))
    return BEARER.sub(rf"\1{GONE}", text)
