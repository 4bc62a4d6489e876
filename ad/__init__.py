"""Image anomaly detection from normal photographs alone: the package behind the three scripts."""


class InputError(ValueError):
    """Bad input from the user: its text is one line that says which, what is wrong, what to do."""
