"""Paths, untrusted files, and raw rows, without torch."""
