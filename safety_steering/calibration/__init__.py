"""Searching for a setting, and the rule that suggests one."""
