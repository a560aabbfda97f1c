"""Relaxation, from a job to its outcome."""
