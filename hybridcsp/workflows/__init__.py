"""Workflows of several searches, or of a search together with another code."""
