"""Image anomaly detection from normal photographs alone: the package behind the three scripts.

The modules in this folder, and the scripts' options, are the core. The other folders are wings,
imported only when their feature is asked for: models, sets, pictures, processes.
"""

import importlib
from collections.abc import Callable


class InputError(ValueError):
    """Bad input from the user: its text is one line that says which, what is wrong, what to do."""


def lazy(package: str) -> Callable:
    """A __getattr__ for a package: its modules are imported when they are first used. So scripts
    answer --help before torch is imported, and the core imports no wing."""
    def load(name):
        path = f"{package}.{name}"
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise
            raise AttributeError(f"the package {package} has no module {name}") from error
    return load


__getattr__ = lazy(__name__)
