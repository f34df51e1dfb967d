"""Its models and judge, and how they were trained."""
