"""Judges, evaluation and calibration on a real model."""
