"""A function for `type: ./row_function.py:text`, as the YAML of a user names it."""


def text(row):
    """Train on the text of a row."""
    return [(row["text"], True)]
