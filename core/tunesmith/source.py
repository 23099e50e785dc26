"""The rows of one dataset entry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.config import DatasetSpec
    from tunesmith.row import Row


@dataclass(frozen=True)
class Source:
    """A dataset entry and its rows, an iterable that can be started again and then gives the same."""

    spec: DatasetSpec
    rows: Iterable[Row]
