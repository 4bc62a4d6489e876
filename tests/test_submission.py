"""The submission: numeric order, formats, and the first difference from a sample."""

import pytest

from ad import InputError
from ad.submission import check_submission, submission


def test_order_is_numeric_and_values_are_written_as_they_are():
    text = submission({"10": 0.5, "9": 1.25, "100": -2.0, "b": 3.0, "a": 0.0})
    assert text == "id,prediction\n9,1.250000\n10,0.500000\n100,-2.000000\na,0.000000\nb,3.000000\n"
    assert submission({"2": 1, "1": 0}) == "id,prediction\n1,0\n2,1\n"


@pytest.mark.parametrize("sample, message", [
    ("id,label\n1,0\n2,0\n", "header id,label, ours is id,prediction"),
    ("", "header nothing"),
    ("id,prediction\n1,0\n3,0\n", "line 3: our id is 2, that of .* is 3"),
    ("id,prediction\n2,0\n1,0\n", "line 2: our id is 1, that of .* is 2"),
    ("id,prediction\n1,0\n", "we have 2 ids, .* has 1"),
    ("id,prediction\n1,0\n2,0\n3,0\n", "we have 2 ids, .* has 3")])
def test_the_first_difference_is_named(tmp_path, sample, message):
    (tmp_path / "sample.csv").write_text(sample)
    with pytest.raises(InputError, match=message):
        check_submission(submission({"1": 0.1, "2": 0.2}), tmp_path / "sample.csv")


def test_equal_ids_pass_whatever_the_values(tmp_path):
    (tmp_path / "sample.csv").write_text("id,prediction\n1,0\n2,1\n")
    check_submission(submission({"1": 0.1, "2": 0.2}), tmp_path / "sample.csv")
    with pytest.raises(InputError, match="cannot read"):
        check_submission("", tmp_path / "none.csv")
