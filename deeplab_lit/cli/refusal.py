"""Texts of a parser made short: its refusals, on up to fifty lines, and its help, on hundreds."""

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from deeplab_lit.shipped import shipped
from deeplab_lit.yaml_files import FORMER

OTHER_OPTIMIZER = (
    "the optimizer is --model.optimizer, like AdamW, with its options behind it; its rates are "
    "--model.lr, --model.head_lr_mult, --model.lr_policy (poly, step, or a class of yours), "
    "--model.poly_power, --model.step_size, --model.step_factor and --model.warmup_steps"
)
# options that one command has and another, which reads the same configurations, has not
ELSEWHERE = {
    ("fit", "optimizer"): OTHER_OPTIMIZER,
    ("fit", "lr_scheduler"): OTHER_OPTIMIZER,
    ("fit", "allow_seen_split"): "it is for validate; leave it out of fit, and of its "
    "configurations",
    ("fit", "masks"): "validate scores masks; to train on some: --data.mask_dir",
    ("validate", "model.scales"): "the network is the checkpoint's; --eval.scales says at which "
    "sizes it sees the images",
    ("validate", "model"): "network and training are the checkpoint's; how it is scored is said "
    "by --eval.…",
    ("validate", "checkpoint"): "validate writes no checkpoints",
    ("validate", "wandb_checkpoint"): "validate writes no checkpoints",
}
HEADER = re.compile(r"^# bases?: (configs/[^\s,]+\.yaml)", re.MULTILINE)  # of an overlay
BASES = ("deeplab_lit.data.SegmentationData", "lightning.Callback")  # nothing is made of them
MOST = 12  # choices that are shown
CLASS_HELP = "One or more arguments specifying"  # the parser's for a class without description
SECTION_HELP = "Path to a configuration file."  # of an option that stands for a whole section
WIDTH, COLUMN = 120, 38  # of a help: its lines, and where descriptions begin
MOST_LINES = 2  # of a description there
NOT_SHOWN = "only in --help_all"  # the topic of rarely used options, whose section is shown
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "tuple": "a list like [1, 2]",
    "list": "a list like [1, 2]",
    "Iterable": "a list like [1, 2]",
    "dict": "names and values",
}


@dataclass(frozen=True)
class Refusal:
    """A command line that was refused.

    Args:
        command: its name.
        argv: the words on it.
        read: configuration → what it says.
        help_of: what the command prints for `--help`, or another such option.
    """

    command: str
    argv: Sequence[str]
    read: dict[str, dict[str, Any]]
    help_of: Callable[[str], str]

    def sentence(self, message: str) -> str:
        """Return what the user is told: the option, its value, what is expected.

        Args:
            message: jsonargparse's.
        """
        message = message.replace(f'"{self.command}.', '"')
        keys = re.findall(r'Parser key "([^"]+)"', message)
        path = ".".join(dict.fromkeys(keys))
        if match := re.search(r"unrecognized arguments: (\S*)", message):
            word = match[1]
            if not word.startswith("-"):
                return f"{word!r} is not expected here: options begin with --"
            return self._unknown(word.partition("=")[0].lstrip("-"), dashes=word[:2])
        if match := re.search(r"arguments are required: (.*)", message):
            return self._missing(match[1].split(", "), path)
        if match := re.search(r"argument ([^:]+): expected (?:one|at least one) argument", message):
            return f"{self._without_value(match[1].rpartition('/')[2])} needs a value"
        if match := re.search(r"invalid choice: ('.*?') \(choose from (.*)\)", message):
            return f"{match[1]} is unknown: expected one of {match[2].replace(chr(39), '')}"
        if match := re.search(r"to be one of \{(.*)\}, but it was not", message):
            commands = ", ".join(re.findall(r"\w+", match[1]))
            return f"a command is missing, like {commands}; --help lists them"
        if match := re.search(r"Group '(.+)' does not accept option '(.+?)'", message):
            return self._unknown(f"{match[1]}.{match[2]}")
        if match := re.search(r"(?:does not accept option|Option) '(.+?)'", message):
            owner = re.findall(r"given class_path '([^']+)'", message)
            return self._unknown(".".join(filter(None, [path, match[1]])), *owner[-1:])
        return self._wrong_value(path, message)

    def _unknown(self, key: str, owner: str = "", dashes: str = "--") -> str:
        key = "model" if key == "model_class" else key  # as it is typed: --model my.Module
        place, name = self._place(key, dashes), owner.rpartition(".")[2] or self.command
        if key in FORMER:
            return f"{place} is called --{FORMER[key]} now"
        for option in (key, key.partition(".")[0]):
            if why := ELSEWHERE.get((self.command, option)):
                return f"{place} is no option of {name}: {why}"
        section, _, last = key.rpartition(".")
        known = self._options(f"--{section}.help={owner}") if owner else self._options()
        known = known or self._options(f"--{section}.help")  # of one class
        siblings = {o.rpartition(".")[2]: o for o in known if o.rpartition(".")[0] == section}
        near = [option for option in siblings.values() if option.startswith(key)]
        near += [siblings[name] for name in get_close_matches(last, siblings, 1)]
        near += [
            name
            for former, name in FORMER.items()
            if former.rpartition(".")[0] == section
            and former.startswith(key)
            and name in self._options()
        ]
        hint = f": did you mean --{near[0]}?" if near else "; --help lists them"
        return f"{place} is no option of {name}{hint}"

    def _missing(self, names: Sequence[str], section: str) -> str:
        if section:  # of a class, which the parser makes from options of its own
            names = [f"--{section}.{name}" for name in names]
            return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
        known = self._options()
        names = [name.removeprefix(f"{self.command}.") for name in names]
        options = [f"--{name}" if name in known else name.upper() for name in names]
        return f"{' and '.join(options)} {'is' if len(options) == 1 else 'are'} missing"

    def _without_value(self, option: str) -> str:
        """Return the option without value; where one of a class has none, the parser blames it."""
        following = [*self.argv[1:], "-"]
        pairs = zip(self.argv, following, strict=True)
        bare = [w for w, after in pairs if after.startswith("-")]
        return next((w for w in bare if w.startswith(f"{option}.") and "=" not in w), option)

    def _wrong_value(self, path: str, message: str) -> str:
        inner = message.rpartition(f'Parser key "{path.rpartition(".")[2]}"')[2] or message
        match = re.search(r"(?:Got value|Given value|Not of type \w+): (.*)", inner)
        value = match[1].partition(" does not conform")[0] if match else ""
        value = re.sub(r"^NestedArg\(.*val='?(.*?)'?\)$", r"\1", value)
        if named := re.search(r"'class_path': '([^']+)'", value):
            value = named[1]
        value = cut(value)
        place = self._place(path) + (": " if self._file_of(path) else " ") + value
        place = place.strip(": ")
        if problem := re.search(r"given class_path '([^']+)':\s+(.+)", inner):
            name = "" if problem[1] == value else f" {problem[1]}:"
            return f"{place}:{name} {problem[2].strip()}"
        if "Unable to load config" in inner:
            return f"{place}: expected options of its own, as --{path}.…"
        if "SegmentationData is abstract" in inner:  # options of a data set that is not named
            if bases := self._bases():
                return bases
            example = f"--{path} Cityscapes --{path}.root DIR"
            return (
                f"--{path} is missing: name the data set that the --{path}.… are of, as {example}"
            )
        if expected := self._expected(path, inner, value):
            return f"{place}: expected {expected}"
        rest = cut(re.sub(r'Parser key "[^"]+":', "", message), 300)
        return f"{place}: {rest}" if path else rest

    def _bases(self) -> str:
        """Return what to type before a configuration that lies on another; empty for nothing."""
        words = [word.partition("=") for word in self.argv]
        after = [*(word[0] for word in words[1:]), ""]
        files = [
            value if sign else following
            for (option, sign, value), following in zip(words, after, strict=True)
            if option == "--config"
        ]
        for file in files:
            with suppress(OSError, KeyError, UnicodeError):
                place = Path(file)
                place = place if place.is_file() else shipped()[file]
                text = place.read_text("utf-8")
                if (match := HEADER.search(text)) and match[1] not in files:
                    return f"{file} lies on a base: type --config {match[1]} before it"
        return ""

    def _expected(self, path: str, inner: str, value: str) -> str:
        if match := re.search(r"conform to restriction v(\W+)(\S+)", inner):
            return f"a number {match[1]} {match[2]}"
        kinds = re.findall(r"Expected (?:an? )?(.+?)(?:\. Got value.*)?$", inner, re.MULTILINE)
        choices: list[str] = []
        words: list[str] = []
        if "does not correspond to a subclass" in inner:
            choices += self._classes(path)
        for kind in kinds:
            if literal := re.search(r"Literal\[(.*)\]", kind):
                choices += re.findall(r"[^', ]+", literal[1])
            elif "dot import path" in kind:
                choices += self._classes(path)
            elif length := re.search(r"tuple with (\d+) elements", kind):
                words.append(f"a list of {length[1]}")
            elif not kind.startswith("path but"):
                name = re.sub(r"<class '(.*)'>", r"\1", kind).partition("[")[0].rpartition(".")[2]
                words.append(WORDS.get(name, name))
        if len(words) > 1 or choices:
            words = [word for word in words if word != "null"]
        choices = list(dict.fromkeys(choices))
        hint = ""
        if len(choices) == 1 and words:  # the one word beside numbers
            words.append(choices[0])
        elif choices:
            shown = choices if len(choices) <= MOST else [*choices[:3], "…"]
            words.insert(0, f"one of {', '.join(shown)}")
            by_name = {choice.lower(): choice for choice in choices}
            near = get_close_matches(value.lower(), by_name, 1)
            hint = f" (did you mean {by_name[near[0]]}?)" if near else ""
        return " or ".join(dict.fromkeys(words)) + hint

    def _place(self, key: str, dashes: str = "--") -> str:
        """Return the option as it was typed: in a file, or on the command line."""
        file = self._file_of(key)
        return f"{file}: {key}" if file else f"{dashes}{key}"

    def _file_of(self, key: str) -> str | None:
        if any(word.partition("=")[0].lstrip("-") == key for word in self.argv):
            return None
        return next((file for file, content in self.read.items() if _holds(content, key)), None)

    def _options(self, which: str = "--help") -> list[str]:
        """Return the names of options, without dashes."""
        names = re.findall(r"^ +(?:-\w [A-Z]+, )?--([\w.]+)", self.help_of(which), re.MULTILINE)
        return [name.replace(".init_args.", ".") for name in names]

    def _classes(self, path: str) -> list[str]:
        """Return the names of the classes that an option knows."""
        about = self.help_of("--help").partition(f"\n  --{path} ")[2].partition("\n  --")[0]
        known = re.sub(r"\s", "", about).partition("knownsubclasses:")[2].rpartition(")")[0]
        return _class_names(known)


def cut(text: str, longest: int = 60) -> str:
    """Return a text on one line, cut to `longest` characters."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[:longest]}…"


def _holds(content: Any, key: str) -> bool:
    """Return whether a configuration says something of an option."""
    if not isinstance(content, dict):
        return False
    section, _, rest = key.partition(".")
    return (
        key in content
        or _holds(content.get("init_args"), key)
        or (bool(rest) and _holds(content.get(section), rest))
    )


def help_of(parser: ArgumentParser, argv: Sequence[str]) -> str:
    """Return what a command line like `--help` prints."""
    with redirect_stdout(io.StringIO()) as text, suppress(SystemExit, ArgumentError):
        parser.parse_args(list(argv))
    return text.getvalue()


def short_help(
    text: str,
    topics: Mapping[str, Sequence[str]],
    usage: str,
    description: str,
    words: Mapping[str, str],
) -> str:
    """Return a help that can be read: the options of each topic, one or two lines each.

    Args:
        text: a parser's help with the text of each option on one line.
        topics: heading → names of options, or of sections, of which all options are shown that no
            topic names. Options of no topic, and those under NOT_SHOWN, are left out, and so are
            topics whose options the command has not.
        usage: of the command.
        description: of the command.
        words: option → what is said of it, where that is not what the parser says.
    """
    named = {name for names in topics.values() for name in names}
    options = {
        name: about if name not in words else words[name] + about[_end_of_words(about) :]
        for name, about in _options_in(text)
    }
    lines = [f"usage: {usage}", "", *textwrap.wrap(description, WIDTH)]
    for heading, names in topics.items():
        if heading == NOT_SHOWN:
            continue
        shown = []
        for name in names:
            below = [o for o in options if o.startswith(f"{name}.") and o not in named]
            for option in ([name] if name in options else []) + below:
                shown += _about(option, options[option])
        if shown:
            lines += ["", f"{heading}:", *shown]
    return "\n".join([*lines, "", "--help_all lists all options, with their types.", ""])


def _options_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and description of each option in a parser's help."""
    pairs = re.findall(r"^  (\S.*?)(?:  +|\n {6,})(\S.*)$", text, re.MULTILINE)
    for invocation, about in pairs:
        name = re.search(r"--([\w.]+)", invocation)
        if name and not name[1].endswith(".help") and about != SECTION_HELP:
            yield name[1].replace(".init_args.", "."), about


def _end_of_words(about: str) -> int:
    """Return where the description of an option ends, and its type and default begin."""
    match = re.search(r" \((?:required, )?(?:type|default): ", about)
    return match.start() if match else len(about)


def _about(option: str, about: str) -> list[str]:
    """Return the lines of an option: its default and the beginning of its description."""
    text = about[: _end_of_words(about)]
    if "known subclasses: " in about and text.startswith(("(", CLASS_HELP)):  # nothing says what
        names = _class_names(about.partition("known subclasses: ")[2].rpartition(")")[0])
        text = f"one of {', '.join(names)}; --{option}.help NAME lists options"
    sentences = [""]  # the first, and more of them where they fit on its lines
    for sentence in re.split(r"(?<=\w\w)(?<!Fig)(?<!Eq)\. ", text):
        sentences.append(". ".join(filter(None, [sentences[-1], sentence])))
    wrapped = [textwrap.wrap(sentence, WIDTH - COLUMN - 2) for sentence in sentences[1:]]
    lines = [each for each in wrapped if len(each) == len(wrapped[0])][-1][:MOST_LINES]
    if len(wrapped[0]) > MOST_LINES:
        lines[-1] += " …"
    default = re.search(r"default: (.*?)(?:, known subclasses: .*)?\)$", about)
    value = f" {cut(default[1], 24)}" if default and default[1] != "null" else ""
    head = f"  --{option}{value}"
    if len(head) >= COLUMN:
        return [head, *(" " * COLUMN + line for line in lines)]
    return [f"{start:{COLUMN}}{line}" for start, line in zip_longest([head], lines, fillvalue="")]


def _class_names(names: str) -> list[str]:
    """Return the bare names of classes in a list with their modules, without base classes."""
    known = re.sub(r"\s", "", names).split(",")
    return [name.rpartition(".")[2] for name in known if name and name not in BASES]
