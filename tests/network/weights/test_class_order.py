from deeplab_lit.network.weights.class_order import differences, is_reordered, moved


def test_only_classes_at_other_indices_have_moved():
    assert not moved(["a", "b"], ["a", "c"])
    assert not moved(["a", "b"], ["x", "y"])
    assert moved(["a", "b", "c"], ["b", "x", "y"])
    assert moved(["a", "b"], ["background", "a"])


def test_spelling_is_no_difference():
    assert differences(["Traffic light", "dining-table"], ["traffic_light", "dining table"]) == ""
    assert moved(["Road", "Car"], ["car", "road"])


def test_names_that_only_their_spelling_tells_apart_are_apart():
    names = ["a", "A", "b"]
    assert not moved(names, names)
    assert differences(names, ["A", "a", "b"]) == "0: a → A, 1: A → a"


def test_what_differs_is_shown_and_not_the_first_names():
    assert differences("xabcd", "xabdc") == "3: c → d, 4: d → c"
    assert differences("ab", "abc") == "2: (none) → c"
    assert differences("abcdefg", "ABCDEFG") == ""
    assert differences("abcdefg", "hijklmn").endswith("4: e → l, and 2 more")


def test_the_same_classes_in_another_order_are_told_from_others():
    assert is_reordered("abc", "acb")
    assert is_reordered(["Road", "car"], ["Car", "road"])
    assert not is_reordered("abc", "abc")
    assert not is_reordered("abc", "bcd")
