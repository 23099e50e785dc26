"""Rounds: what the optimizer steps are taken on, from stored data, from streams, or from rollouts."""
