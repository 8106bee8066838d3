"""How every command reads its command line.

No option may be abbreviated, configurations are checked YAML, and what is refused is refused in a
sentence: the option, what was found, what is expected.
"""

import io
import os
import re
from argparse import ArgumentError
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from deeplab_lit.cli.refusal import Refusal, cut
from deeplab_lit.errors import UserError
from deeplab_lit.yaml_files import MODE, ConfigError, read_options, read_text

CONFIG = "--config="
SECTIONS = ("trainer", "model", "data", "eval", "crf", "checkpoint")

Contents = dict[str, dict[str, Any]]  # name of a configuration → what it says


class UsageError(UserError, ValueError):
    """A command line or configuration has an option that does not exist, or such a value."""


class Parser(ArgumentParser):
    """A parser without abbreviations that raises what it refuses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        ours = {"allow_abbrev": False, "exit_on_error": False, "parser_mode": MODE}
        super().__init__(*args, **ours | kwargs)


def parse(
    parser: ArgumentParser,
    argv: Sequence[str],
    contents: Contents | None = None,
    commands: Collection[str] = (),
) -> Namespace:
    """Parse a command line, with its configurations.

    Args:
        parser: of the command.
        argv: the command line.
        contents: of configurations on it, where something else counts than what the file holds.
        commands: of the parser, one of which is the first word.

    Raises:
        ConfigError: a configuration cannot be read.
        UsageError: the parser refuses something.
    """
    argv, contents = joined_configs(argv), contents or {}
    read = {name: read_config(name) for name in configs(argv) if name not in contents} | contents
    for name, content in read.items():
        if empty := next(_empty(content), None):
            raise UsageError(f"{name}: {empty} is null: leave it out, or give it a value")
    words = [_as_text(word, contents) for word in argv]
    with refusals(parser, argv, read, commands):
        return parser.parse_args(words)


def joined_configs(argv: Sequence[str]) -> list[str]:
    """The command line with each of its configurations as one word, `--config=FILE`.

    A `~` that begins a value is the home folder also in `--name=~/x`, where a shell leaves it.

    Raises:
        UsageError: a configuration has no name.
    """
    words, rest = [], iter(argv)
    for word in rest:
        if word in ("--config", "-c"):
            name = next(rest, "")
            word = CONFIG + ("" if name.startswith("-") else name)
        elif word.startswith("-c"):
            word = CONFIG + word[2:].removeprefix("=")
        if word == CONFIG:
            raise UsageError("--config needs a file")
        name, equals, value = word.partition("=")
        if equals and re.match(r"~\w*(/|$)", value):
            word = f"{name}={os.path.expanduser(value)}"  # noqa: PTH111 - the rest stays as typed
        words.append(word)
    return words


def configs(argv: Sequence[str]) -> list[str]:
    """The configurations on a command line that `joined_configs` has seen, in their order."""
    return [word.removeprefix(CONFIG) for word in argv if word.startswith(CONFIG)]


def read_config(name: str) -> dict[str, Any]:
    """The content of a configuration, a file or, like `{model: {lr: 1}}`, the YAML itself.

    Raises:
        ConfigError: it cannot be used; of a file that is not there, the nearest name is said.
    """
    if os.path.lexists(name):
        return read_options(name)
    if ":" in name and isinstance(content := read_text(name, f"--config {cut(name)}"), dict):
        return content
    path = Path(name)
    is_folder = os.path.isdir(path.parent)  # noqa: PTH112 - its name may be no name at all
    siblings = {file.stem: file for file in path.parent.glob("*.y*ml")} if is_folder else {}
    near = get_close_matches(path.stem, siblings, 1)
    hint = f": did you mean {siblings[near[0]]}?" if near else ""
    raise ConfigError(f"--config {cut(name, 300)} cannot be read: no such file{hint}")


@contextmanager
def refusals(
    parser: ArgumentParser, argv: Sequence[str], read: Contents, commands: Collection[str] = ()
) -> Iterator[None]:
    """Turn what a parser refuses into a sentence.

    Args:
        parser: which.
        argv: the command line.
        read: what has been read beside it; the file is named where an option stands there.
        commands: of the parser, one of which is the first word.

    Raises:
        UsageError: the sentence.
    """
    try:
        yield
    except ArgumentError as error:
        verb = [word for word in argv[:1] if word in commands]

        def help_of(word: str) -> str:
            with redirect_stdout(io.StringIO()) as text, suppress(SystemExit, ArgumentError):
                parser.parse_args([*verb, word])
            return text.getvalue()

        refusal = Refusal("".join(verb) or parser.prog.split(".")[-1], argv, read, help_of)
        raise UsageError(refusal.sentence(str(error))) from error


def _empty(content: Any, place: str = "") -> Iterator[str]:
    """The sections and classes of a configuration that are null."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    for key, value in content.items() if isinstance(content, dict) else ():
        where = f"{place}{key}"
        if value is None and (key in ("class_path", "init_args") or where in SECTIONS):
            yield where
        yield from _empty(value, f"{where}.")


def _as_text(word: str, contents: Contents) -> str:
    """A configuration on the command line as what it holds, where that is given."""
    name = word.removeprefix(CONFIG)
    return CONFIG + yaml.safe_dump(contents[name]) if word != name and name in contents else word
