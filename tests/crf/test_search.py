import pytest

from deeplab_lit.crf import CRFError
from deeplab_lit.crf.search import Point, at_edge, coarse, fine, read_scores, search, verdict


def test_the_first_round_is_the_papers_grid():
    grid = coarse()
    assert len(grid) == len(set(grid)) == 4 * 8 * 4
    assert {p.bi_w for p in grid} == {3, 4, 5, 6}
    assert {p.bi_xy_std for p in grid} == {30, 40, 50, 60, 70, 80, 90, 100}
    assert {p.bi_rgb_std for p in grid} == {3, 4, 5, 6}


def test_the_second_round_is_finer_around_the_best():
    around = fine(Point(4, 50, 3))
    assert len(around) == 27
    assert {p.bi_xy_std for p in around} == {45, 50, 55}
    assert {p.bi_w for p in around} == {3.5, 4, 4.5}


@pytest.mark.parametrize("top", [Point(4.5, 55, 3.5), Point(3, 30, 3), Point(6.5, 105, 6.5)])
def test_it_finds_the_top_of_a_hill(top):
    def score(point):
        return -sum((a - b) ** 2 / b for a, b in zip(point, top, strict=True))

    found = {point: value for point, value, _ in search(score, {})}
    assert max(found, key=found.get) == top


def test_what_is_known_is_not_computed_again():
    def score(point):
        calls.append(point)
        return point.bi_w

    calls = []
    whole = [(point, value) for point, value, _ in search(score, {})]
    known = dict(whole[:50])
    calls.clear()
    again = [(point, value) for point, value, _ in search(score, known)]
    assert again == whole
    assert not set(calls) & set(known)


def test_it_tells_how_many_are_left():
    left = [left for _, _, left in search(lambda point: 0.0, {})]
    assert left == [*range(127, -1, -1), *range(25, -1, -1)]  # the best is known


def test_a_best_value_at_the_end_of_the_range_is_told():
    assert at_edge(Point(4, 50, 5)) == []
    assert at_edge(Point(3, 50, 6.5)) == ["bi_w", "bi_rgb_std"]
    assert at_edge(Point(4, 105, 4)) == ["bi_xy_std"]


@pytest.mark.parametrize(
    ("low", "high", "images", "words"),
    [
        (-0.01, 0.08, 6, "x: the interval contains 0, so 6 images cannot tell whether it helps."),
        (-0.01, 0.08, 100, "x: the interval contains 0, so 100 images cannot tell"),
        (0.01, 0.08, 1, "x: helps on 1 image, too few to say so of others."),
        (-0.08, -0.01, 19, "x: harms on 19 images, too few"),
        (0.01, 0.08, 100, "x: better than the network alone."),
        (-0.08, -0.01, 100, "x: worse than the network alone, so leave this CRF out."),
    ],
)
def test_a_verdict_is_no_stronger_than_its_interval(low, high, images, words):
    assert verdict("x", low, high, images).startswith(words)


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", "bi_w,bi_xy_std,bi_rgb_std,miou\n1,2\n", "\xff\n"], ids=ascii
)
def test_scores_that_are_none_are_a_sentence(tmp_path, content):
    path = tmp_path / "scores.csv"
    path.write_text(content, "latin-1")
    with pytest.raises(CRFError, match=r"scores\.csv does not hold .* remove it"):
        read_scores(path)
