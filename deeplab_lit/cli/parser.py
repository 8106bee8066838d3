"""Parse command lines, for every command in the same way.

No option may be abbreviated, options win over configurations wherever they stand, configurations
are checked YAML, and what is refused is refused in a sentence: the option, the value, what is
expected. Imports neither torch nor Lightning: a command's help must not wait for them.
"""

import os
import re
from argparse import ArgumentError
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from deeplab_lit.cli.refusal import Refusal, cut, help_of, short_help
from deeplab_lit.errors import UserError
from deeplab_lit.shipped import located, near
from deeplab_lit.yaml_files import MODE, ConfigError, as_yaml, read_options, read_text

CONFIG = "--config="
SECTIONS = ("trainer", "model", "data", "loader", "eval", "checkpoint")
HELP_ALL = "--help_all"

Contents = dict[str, dict[str, Any]]  # name of a configuration → its content


class UsageError(UserError, ValueError):
    """A command line or configuration has an option that does not exist, or such a value."""


class OneLine(DefaultHelpFormatter):
    """Format the help with the text of each option on one line, however long."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100_000)


class Parser(ArgumentParser):
    """A parser without abbreviations that raises what it refuses.

    Args:
        topics: heading → options or sections of `--help`, as `refusal.short_help` takes them;
            `--help_all` lists all options. None: `--help` lists all of them.
        examples: command lines, to end the help with.
        words: option → what `--help` says of it, instead of its class's docstring.
        args: of the parent.
        kwargs: of the parent; the beginning of a command's docstring, `python -m …: `, is left out
            of `description`.
    """

    def __init__(
        self,
        *args: Any,
        topics: Mapping[str, Sequence[str]] | None = None,
        examples: Sequence[str] = (),
        words: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        settings: dict[str, Any] = {
            "allow_abbrev": False,
            "exit_on_error": False,
            "parser_mode": MODE,
        }
        if kwargs.get("description"):
            kwargs["description"] = without_call(kwargs["description"])
        super().__init__(*args, **settings | kwargs)
        self.topics, self.examples, self.words = topics, examples, words or {}

    def format_help(self, *args: Any) -> str:
        """Return the text of `--help`."""
        lines = ["", "Examples:", *(f"  {line}" for line in self.examples), ""]
        return self._options_help(*args) + ("\n".join(lines) if self.examples else "")

    def _options_help(self, *args: Any) -> str:
        if self.topics is None:
            return super().format_help(*args)
        wide = self.formatter_class
        self.formatter_class = OneLine
        try:
            text = super().format_help()
        finally:
            self.formatter_class = wide
        about = self.usage or "", self.description or ""
        return short_help(text, self.topics, *about, self.words)

    def full_help(self) -> str:
        """Return the text of `--help_all`: every option, with its type."""
        return super().format_help()


def without_call(doc: str) -> str:
    """Return a command's docstring as a description, its first line without the call.

    "python -m deeplab_lit.fit: train; see --help." becomes "Train."
    """
    call, _, rest = doc.partition(": ")
    if not re.fullmatch(r"python -m [\w.]+", call):
        return doc
    return (rest[:1].upper() + rest[1:]).replace("; see --help.", ".", 1)


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
        contents: configurations to be parsed with this content instead of their file's.
        commands: of the parser, one of which is the first word.

    Raises:
        ConfigError: a configuration cannot be read.
        UsageError: the parser refuses something.
        SystemExit: code 0 after `--help` and `--help_all`.
    """
    if HELP_ALL in argv and isinstance(parser, Parser):
        print(parser.full_help())
        raise SystemExit(0)
    argv, contents = joined_configs(argv), contents or {}
    read = {name: read_config(name) for name in configs(argv) if name not in contents} | contents
    for name, content in read.items():
        if empty := next(_empty(content), None):
            raise UsageError(f"{name}: {empty} is null: leave it out, or give it a value")
    words = [_as_text(word, contents) for word in argv]
    with refusals(parser, argv, read, commands):
        return parser.parse_args(words)


def joined_configs(argv: Sequence[str]) -> list[str]:
    """Return a command line with each of its configurations as one word, `--config=FILE`.

    A configuration that is not in this folder, but in the package, becomes the package's file.
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
        if word.startswith(CONFIG):
            word = CONFIG + located(word.removeprefix(CONFIG))
        words.append(word)
    return words


def configs_first(argv: Sequence[str]) -> list[str]:
    """Return a command line with its configurations in front, so that options win over them."""
    words = joined_configs(argv)
    return sorted(words, key=lambda word: not word.startswith(CONFIG))


def configs(argv: Sequence[str]) -> list[str]:
    """Return the configurations on a command line of `joined_configs`, in their order."""
    return [word.removeprefix(CONFIG) for word in argv if word.startswith(CONFIG)]


def flags(argv: Sequence[str]) -> set[str]:
    """Return the names of the options on a command line, with their dashes."""
    return {word.partition("=")[0] for word in argv if word.startswith("-")}


def value_of(argv: Sequence[str], name: str) -> str:
    """Return the value of an option as the parser takes it, before anything is parsed.

    The last one on the command line counts, else that of the last configuration.

    Args:
        argv: a command line of `joined_configs`.
        name: of the option, without dashes.

    Returns:
        The value; empty where there is none.
    """
    values = [str(content[name]) for c in configs(argv) if (content := peek(c)).get(name)]
    for word, following in pairwise([*argv, ""]):
        if word == f"--{name}":
            values.append(following)
        elif word.startswith(f"--{name}="):
            values.append(word.partition("=")[2])
    return values[-1] if values else ""


def words_of(argv: Sequence[str], sections: Collection[str], *, others: bool = False) -> list[str]:
    """Return the words of a command line that belong to options of some sections.

    Args:
        argv: the command line.
        sections: names with their dashes, like --data, to which --data.root belongs.
        others: return all other words instead.
    """
    words, is_kept = [], others
    for word in argv:
        if re.match(r"--|-[a-z]$", word):  # no number below 0
            is_kept = (word.partition("=")[0].partition(".")[0] in sections) is not others
        words += [word] if is_kept else []
    return words


def peek(config: str) -> dict[str, Any]:
    """Return the content of a configuration; of an unreadable one nothing: `parse` refuses it."""
    try:
        return read_config(config)
    except ConfigError:
        return {"data": None}


def read_config(name: str) -> dict[str, Any]:
    """Read a configuration, a file or, like `{model: {lr: 1}}`, the YAML itself.

    Raises:
        ConfigError: it cannot be used; for a file that does not exist, the nearest name is said.
    """
    if os.path.lexists(name):
        return read_options(name)
    if ":" in name and isinstance(content := read_text(name, f"--config {cut(name)}"), dict):
        return content
    raise ConfigError(f"--config {cut(name, 300)} cannot be read: no such file{near(name)}")


@contextmanager
def refusals(
    parser: ArgumentParser, argv: Sequence[str], read: Contents, commands: Collection[str] = ()
) -> Iterator[None]:
    """Turn what a parser refuses into a sentence.

    Args:
        parser: of the command.
        argv: the command line.
        read: the configurations; a file is named where an option stands in it.
        commands: of the parser, one of which is the first word.

    Raises:
        UsageError: the sentence.
    """
    try:
        yield
    except ArgumentError as error:
        verb = [word for word in argv[:1] if word in commands]

        def show(word: str) -> str:
            if word == "--help" and not verb and isinstance(parser, Parser):
                return parser.full_help()
            return help_of(parser, [*verb, word])

        refusal = Refusal("".join(verb) or parser.prog.split(".")[-1], argv, read, show)
        raise UsageError(refusal.sentence(str(error))) from error


def _empty(content: Any, place: str = "") -> Iterator[str]:
    """Yield the sections and classes of a configuration that are null."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    for key, value in content.items() if isinstance(content, dict) else ():
        where = f"{place}{key}"
        if value is None and (key in ("class_path", "init_args") or where in SECTIONS):
            yield where
        yield from _empty(value, f"{where}.")


def _as_text(word: str, contents: Contents) -> str:
    """Return a configuration on the command line as the content that counts instead."""
    name = word.removeprefix(CONFIG)
    return CONFIG + as_yaml(contents[name]) if word != name and name in contents else word
