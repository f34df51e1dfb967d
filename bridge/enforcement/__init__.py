"""A guarded server: the host's policy, applied to every job. `start` sets it up; without a policy nothing here runs."""
