"""Analyse searches and comparisons: statistics, tables, plots and live displays."""
