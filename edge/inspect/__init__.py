"""What a foreign model is: its graph, its card, a proposed manifest."""
