"""The second generator: the same scenes and judge, joint attention, prompts read by an LLM, sharper pictures."""
