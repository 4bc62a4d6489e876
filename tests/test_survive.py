"""A little of tests/survive.py, which does more on demand; each of its checks asserts inside that
nothing gives a traceback."""

import pytest
from survive import (MUTATIONS, PROJECT, bad_files, bad_folders, inference_kills, random_lines,
                     random_tables, training_kills)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("survive")


def test_a_run_killed_again_and_again_ends_as_if_left_alone(folder):
    kills, finished = training_kills(2, folder)
    assert kills >= 2 and finished >= 1


def test_killed_inference_leaves_the_old_scores_or_the_new_ones(folder):
    assert inference_kills(2, folder) == 2


def test_random_command_lines_never_give_a_traceback(folder):
    assert random_lines(8, folder)[0] == 8


def test_spoilt_images_and_masks_are_read_or_named(folder):
    assert bad_files(3, folder)[0] == 3


def test_bad_folders_never_give_a_traceback(tmp_path):
    assert bad_folders(2, tmp_path)[0] == 2


def test_damaged_tables_never_give_a_traceback(folder):
    assert random_tables(4, folder)[0] == 4


def test_mutations_are_still_of_the_code():
    for module, old, new, _ in MUTATIONS:
        assert old != new and old in (PROJECT / "ad" / f"{module}.py").read_text(), (module, old)
