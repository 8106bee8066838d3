"""Take keys, tokens and passwords out of the command lines and configurations that are recorded."""

import re
from collections.abc import Sequence
from typing import Any

GONE = "…"
SECRET = (
    r"[\w.-]*(?:key|token|passw(?:or)?d|pwd|passphrase|secret|credential|auth|sig(?:nature)?)s?"
)
LOGIN = re.compile(r"(\w+://)[^\s@]+@")
PAIR = re.compile(rf"""(\b{SECRET}["']?\s*[:=]\s*["']?)[^"'&,}}\]\s]+""", re.IGNORECASE)


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
    return PAIR.sub(rf"\1{GONE}", LOGIN.sub(rf"\1{GONE}@", text))
