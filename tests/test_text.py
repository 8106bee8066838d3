import pytest

from deeplab_lit.text import first_few, plural, redacted, redacted_words, shared_end


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (2000, "2,000 images")]
)
def test_only_one_is_one(number, said):
    assert plural(number, "image") == said


def test_of_many_names_three_are_said():
    assert first_few(["sky", "road", "car"]) == "sky, road, car"
    assert first_few(["sky", "road", "car", "pole"]) == "sky, road, car, …"
    assert first_few(list("ab")) == "a, b"


def test_the_plural_of_what_ends_in_s():
    assert [plural(n, "class") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]


def test_values_of_options_that_name_a_secret_are_left_out():
    typed = [
        *("fit.py", "--trainer.logger.init_args.api_key=abc1", "--hub_token", "abc2"),
        *("--trainer.logger={class_path: X, init_args: {api_key: abc3, project: p}}",),
        *("--data.root=https://me:abc4@host/x?token=abc5&a=1", "--PASSWORD", "abc6"),
        *("--db.credentials=abc7", "--x.secret", "abc8", "--lr=1"),
    ]
    said = " ".join(redacted_words(typed))
    assert "abc" not in said
    for kept in ("fit.py", "--hub_token", "project: p", "host/x?token=", "a=1", "--lr=1"):
        assert kept in said


def test_what_only_sounds_like_a_secret_stays():
    typed = [
        "--data.keyboard=x",
        "--images",
        "a@b.jpg",
        "--model.weights=key/a.pth",
        "--run",
        "token",
    ]
    assert redacted_words(typed) == typed


def test_a_switch_before_another_option_hides_nothing():
    typed = ["--use_key", "--run=a", "x"]
    assert redacted_words(typed) == typed


def test_a_nested_configuration_keeps_its_shape():
    config = {"logger": [{"init_args": {"api_key": "a", "workspace": "w"}}], "lr": 1.0, "key": None}
    assert redacted(config) == {
        "logger": [{"init_args": {"api_key": "…", "workspace": "w"}}],
        "lr": 1.0,
        "key": None,
    }


def test_passwords_with_slashes_and_other_names_of_secrets_are_gone():
    words = ["--x=https://u:p/w@h/x", "https://h/a?sig=hidden", "--auth", "hidden", "--pwd=hidden"]
    words += ["--token", "-hidden", '{"api_key": "hidden and hidden", "a": 1}', "--bearer=hidden"]
    words += ['{"Authorization": "Bearer hidden"}', "{headers: Bearer hidden}"]
    shown = " ".join(redacted_words(words))
    assert "p/w" not in shown
    assert '{"api_key": "…", "a": 1}' in shown
    assert "hidden" not in shown


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (["a is wrong. Do this. Or that", "b is wrong. Do this. Or that"], "Do this. Or that"),
        (["a is wrong", "b is wrong"], ""),
        (["a. Do this", "b. Do that"], ""),
        (["a. Do this", "a. Do this"], "Do this"),
    ],
)
def test_the_sentences_that_end_all_lines_are_found(lines, end):
    assert shared_end(lines) == end
