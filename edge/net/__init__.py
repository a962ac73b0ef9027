"""Asking other machines, within limits of time and bytes, whatever they answer."""
