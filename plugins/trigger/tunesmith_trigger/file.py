"""Look for a trigger file, and delete it."""

from __future__ import annotations

from pathlib import Path

from tunesmith import Run


def taken(run: Run, path: Path) -> int:
    """Return 1 if the trigger file exists, and delete it; otherwise 0.

    A file with content is not a trigger, and is not deleted. What can't be deleted would trigger again and again, so
    both are notes instead.
    """
    try:
        if not path.is_file():
            return 0
        if path.stat().st_size:
            run.note("trigger file", f"{path} is not empty, and was ignored")
            return 0
        path.unlink()
    except OSError as error:
        run.note("trigger file", f"{path} can't be deleted, and was ignored: {error.strerror}")
        return 0
    return 1
