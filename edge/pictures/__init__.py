"""Pictures as the decoder gives them."""
