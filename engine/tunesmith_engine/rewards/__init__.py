"""Reward functions: they run in processes of their own, whatever they do there."""
