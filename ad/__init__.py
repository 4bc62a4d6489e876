"""Image anomaly detection from normal photographs alone: the package behind the three scripts."""

import importlib


class InputError(ValueError):
    """Bad input from the user: its text is one line that says which, what is wrong, what to do."""


def __getattr__(name):
    """ad.NAME is the module ad.NAME, imported when it is first used: scripts parse their options,
    and answer --help, before torch is imported."""
    try:
        return importlib.import_module(f"ad.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(f"the package ad has no module {name}") from error
