"""Paths, files that others wrote, and rows, without torch."""
