"""The submission: numeric order, formats, samples as spreadsheets save them, differences."""

import pytest

from ad import InputError
from ad.sets.submission import check_submission, read_rows, sample_order, submission


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


ROWS = [["id", "prediction"], ["0.png", "0"], ["ä b", "0,5"]]


@pytest.mark.parametrize("text, encoding", [
    ("id,prediction\n0.png,0\nä b,\"0,5\"\n", "utf-8"),
    ("id,prediction\n0.png,0\nä b,\"0,5\"", "utf-8-sig"),
    ("id;prediction\r\n0.png;0\r\nä b;0,5\r\n\r\n;\r\n", "utf-8-sig"),
    ("id\tprediction\r\n0.png\t0\r\nä b\t0,5\r\n", "utf-16"),
    ("\n id , prediction,,\n\n0.png, 0\n ä b , \"0,5\" \n \n", "utf-8"),
    ("id,prediction\r0.png,0\r\"ä b\",\"0,5\"\r", "utf-8")])
def test_a_csv_is_read_however_a_spreadsheet_saved_it(tmp_path, text, encoding):
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    assert read_rows(tmp_path / "a.csv") == ROWS


@pytest.mark.parametrize("content", ["ä".encode("latin-1"), b"\xff\xfea", b"\x89PNG\xff"])
def test_what_is_no_csv_is_one_line(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match="cannot read .*a.csv .*it must be a CSV file in UTF-8"):
        read_rows(tmp_path / "a.csv")


NAMES = {"0": "0.png", "10": "10.JPG", "x.y": "x.y.png"}


@pytest.mark.parametrize("text", ["Id;label\n10;1\n0;1\nx.y;1\n",
                                  "Id,label\n10.JPG,\n0.png,\nx.y.png,\n",
                                  "Id,label\ntest/10.JPG,1\n0,1\nx.y.png,1\n"])
def test_a_submission_like_a_sample_has_its_header_ids_and_order(tmp_path, text):
    (tmp_path / "sample.csv").write_text(text)
    like = sample_order(tmp_path / "sample.csv", NAMES)
    ours = submission({"0": 0.5, "x.y": 0.25, "10": 1}, like)
    ids = [line.replace(";", ",").split(",")[0] for line in text.splitlines()]
    assert ours == f"Id,label\n{ids[1]},1\n{ids[2]},0.500000\n{ids[3]},0.250000\n"
    check_submission(ours, tmp_path / "sample.csv")


@pytest.mark.parametrize("text, message", [
    ("id,p\n0,0\n10,0\n", "no line for 1 test images, x.y.png first"),
    ("id,p\n0,0\n10,0\nx.y,0\n11,0\n", "'11' is the name of no test images; .* 0 or 0.png"),
    ("id,p\n0,0\n10,0\nx.y,0\n0.png,0\n", "'0.png' is the name of an image that has a line"),
    ("id\n0\n", "has the header id; it must be two columns"), ("", "header nothing"),
    ("id,p,q\n0,0,0\n", "has the header id,p,q; it must be two columns")])
def test_a_sample_of_other_images_is_named(tmp_path, text, message):
    (tmp_path / "sample.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        sample_order(tmp_path / "sample.csv", NAMES)
