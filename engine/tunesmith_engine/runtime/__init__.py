"""Processes, random numbers, atomic files, and the record of a run."""
