"""Data beyond one category in MVTec AD's layout: the procedural demo sets, casting wells, and
folders without categories, whose images are grouped, routed and written as a submission."""

from ad import lazy

__getattr__ = lazy(__name__)
