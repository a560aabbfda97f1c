"""Relaxation of a job to its outcome: settings, guards, optimiser, calculators and backends."""
