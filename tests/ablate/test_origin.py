from dataclasses import replace

import pytest

from deeplab_lit.ablate.origin import origin


@pytest.fixture
def rows(make_row):
    return [make_row("a", [0.5, 0.6]), make_row("b", [0.5, 0.6])]


def test_versions_commit_and_device_are_named_once(rows):
    assert origin(rows) == "torch 2.5; commit unknown; on a <fast> GPU."


def test_what_differs_between_runs_is_listed_and_said(rows):
    fit = rows[1].results[1].fit
    fit |= {"versions": {"torch": "2.6"}, "git_commit": "abc"}
    other = {"versions": {"torch": "2.5"}, "git_commit": "def+", "device": "cpu, 4 threads"}
    rows[0].results[0] = replace(rows[0].results[0], validation=other)
    assert origin(rows) == (
        "torch 2.5 / torch 2.6; commit unknown, def+, abc; on a <fast> GPU and cpu, 4 threads. "
        "Not all runs were made alike: 2 versions, 3 commits, 2 devices."
    )


def test_the_steps_are_those_that_were_trained(rows):
    for row, steps in zip(rows, (40, 1200), strict=True):
        for result in row.results:
            result.fit["steps"] = steps
    assert "on a <fast> GPU. Trained for 40 or 1,200 optimizer steps." in origin(rows)
