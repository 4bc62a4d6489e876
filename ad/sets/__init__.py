"""What goes beyond one run of one category in MVTec AD's layout, scored as it was trained: other
layouts and the procedural demo sets, odd images and masks, single files; folders without
categories, whose images are grouped, routed and written as a submission; several categories, runs
that vote, that are resumed, or that are judged by another scoring or another rule."""

from ad import lazy

__getattr__ = lazy(__name__)
