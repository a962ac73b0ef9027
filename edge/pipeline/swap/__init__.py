"""Changing the model while frames flow: trial, shadow run, agreement, roll-back."""
