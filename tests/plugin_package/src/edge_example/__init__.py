"""Parts for Edgeloop that live in a package of their own."""
