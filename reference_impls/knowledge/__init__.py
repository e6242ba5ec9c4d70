"""What is known about the methods: the taxonomy, and what is made from it and from their source."""
