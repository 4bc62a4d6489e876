"""The scripts' options: the only part of the package that knows what was parsed, called args."""
