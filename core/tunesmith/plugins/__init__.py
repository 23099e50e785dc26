"""Declare, find, order and call plugins."""
