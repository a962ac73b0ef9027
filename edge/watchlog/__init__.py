"""The watch log: for each camera and second what was seen and what was not, chained by hashes and signed."""
