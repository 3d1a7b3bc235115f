from diffad.base.gate import admitted


def test_nothing_new_joins_unless_it_is_worth_it():
    assert admitted(["without", "some", "all"], [0.5, 0.53, 0.52], worth=0.01) == "some"
    assert admitted(["without", "some", "all"], [0.5, 0.505, 0.49], worth=0.01) == "without"
    assert admitted(["without"], [0.5], worth=0.0) == "without"


def test_what_cannot_be_judged_does_not_join():
    assert admitted(["without", "all"], [float("nan"), float("nan")], worth=0.0) == "without"
