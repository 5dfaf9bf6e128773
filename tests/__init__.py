"""A package, so that a `tests` that some library installs does not take its place."""
