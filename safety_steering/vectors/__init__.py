"""The safety vector, its file and its mix."""
