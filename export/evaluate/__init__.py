"""Accuracy of a model file on labelled data, on any engine."""
