"""Workflows of many searches, or of a search together with another code."""
