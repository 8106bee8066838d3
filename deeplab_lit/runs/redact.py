"""Keys, tokens and passwords in command lines and configurations, taken out of what is recorded."""

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
    """A command line without secrets: values of options called so, and logins in addresses."""
    shown, before = [], ""
    for word in words:
        is_value = before.startswith("-") and "=" not in before and not word.startswith("--")
        shown.append(GONE if is_value and _is_secret(before) else _redacted_text(word))
        before = word
    return shown


def redacted(value: Any, name: str = "") -> Any:
    """A nested configuration without secrets.

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
