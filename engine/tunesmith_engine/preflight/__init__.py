"""Predict and check a run before its first step: plan, memory, doctor, verify."""
