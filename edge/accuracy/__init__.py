"""How good is it here? Recall and precision of a running camera, from some sixty pictures that a person confirms."""
