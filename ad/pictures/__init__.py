"""Everything that is looked at: heat maps, grids, charts, comparisons of runs, the collapse check
and the report that a browser shows."""

from ad import lazy

__getattr__ = lazy(__name__)
