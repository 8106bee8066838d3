"""What YAML may be in a configuration or a sweep file."""

import pytest
import yaml

from deeplab_lit.cli.parser import Parser
from deeplab_lit.yaml_files import ConfigError, as_yaml, load_checked, read_options, read_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED = {
    "a key twice": ("model:\n  lr: 1\n  lr: 2\n", "x.yaml has lr twice, in line 2 and in line 3"),
    "a quoted key twice": ("lr: 1\n'lr': 2\n", "has lr twice"),
    "a key twice, in a list": ("a:\n- {b: 1, b: 2}\n", "has b twice"),
    "a key twice, through an alias": ("a: &a {b: 1, b: 2}\nc: *a\n", "has b twice"),
    "aliases that multiply": (LAUGHS, "more than 100,000 values"),
    "a value in itself": ("a: &a [*a]\n", "contains itself"),
    "a mapping in itself": ("a: &a {b: *a}\n", "contains itself"),
    "too deep for PyYAML": ("[" * 100_000, "nested more than 40 deep"),
    "too deep": ("[" * 50 + "]" * 50, "nested more than 40 deep"),
    "no YAML": ("a: [\n", "x.yaml is no YAML, line 2"),
    "tabs": ("a:\n\tb: 1\n", "is no YAML, line 2"),
    "two documents": ("a: 1\n---\nb: 1\n", "is no YAML, line 2"),
    "an object": ("a: !!python/object/apply:os.getcwd []\n", "no YAML that can be used"),
    "no such day": ("a: 2026-13-45\n", "no YAML that can be used"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_to_be_used_is_refused_with_file_and_line(case, tmp_path):
    text, words = REFUSED[case]
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_yaml(tmp_path / "x.yaml")
    assert str(tmp_path / "x.yaml") in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: Größe\n".encode("latin-1"), "line 1: not UTF-8 (byte 0xf6)"),
        ("a: b\n".encode("utf-16"), "UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0", "binary"),
        (b"#" * 1_000_001, "more than 1 MB"),
    ],
)
def test_what_is_no_utf_8_text_is_refused(content, words, tmp_path):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_yaml(tmp_path / "x.yaml")
    assert words in str(refused.value)


def test_places_that_are_no_files_are_refused(tmp_path):
    for place in (tmp_path, tmp_path / "none.yaml", "a\0b", "a" * 5000):
        with pytest.raises(ConfigError, match=r"cannot be read|is a folder"):
            read_yaml(place)


@pytest.mark.parametrize("text", ["", "- a\n", "a", "1: 2\n"])
def test_a_configuration_holds_options(text, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match="is no configuration: it holds"):
        read_options(tmp_path / "x.yaml")


def test_healthy_yaml_is_read_as_before(tmp_path):
    text = "\ufeffbase: &b {k: 1, l: [1.5, .inf]}\nmine:\n  <<: *b\n  k: 2\nagain: [*b, *b]\n"
    (tmp_path / "x.yaml").write_text(text, "utf-8")
    base = {"k": 1, "l": [1.5, float("inf")]}
    assert read_yaml(tmp_path / "x.yaml") == {
        "base": base,
        "mine": base | {"k": 2},
        "again": [base, base],
    }


def test_parsers_read_it_so_too(tmp_path):
    parser = Parser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--a", type=dict[str, float])
    (tmp_path / "x.yaml").write_text("a: {b: 1e-3, c: 2}\n")
    assert parser.parse_args([f"--config={tmp_path / 'x.yaml'}"]).a == {"b": 1e-3, "c": 2.0}
    with pytest.raises(yaml.YAMLError, match="b twice"):
        load_checked("{b: 1, b: 2}")
    (tmp_path / "x.yaml").write_text("a: {b: 1, b: 2}\n")
    with pytest.raises(Exception, match="b twice"):
        parser.parse_args([f"--config={tmp_path / 'x.yaml'}"])
    with pytest.raises(Exception, match=r"b: 1, b: 2"):
        parser.parse_args(["--a={b: 1, b: 2}"])


@pytest.mark.parametrize(
    "text", ["1e3", "12e5", "-1.5E3", "1_0e2", "1e-3", "yes", "null", "1", "2026-11-27", "ä: b"]
)
def test_what_is_written_again_is_the_text_or_the_number_that_it_was(text):
    content = {"run": text, "lr": 1e-3, "steps": 1000, "sizes": [1.0, 0.5], "none": None}
    assert load_checked(as_yaml(content)) == content
