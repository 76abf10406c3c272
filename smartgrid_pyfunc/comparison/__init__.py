"""Registered versions held against each other, each scored in its own process, and what that says about a promotion."""

from smartgrid_pyfunc.comparison.compare import compare
from smartgrid_pyfunc.comparison.promotion import Limits, against_champion

__all__ = ["Limits", "against_champion", "compare"]
