"""Cameras of the network that speak ONVIF: found, and asked for what they are and which pictures they give."""
