"""What steering did to a prompt set: rates, distances, reports."""
