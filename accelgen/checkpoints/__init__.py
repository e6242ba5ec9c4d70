"""Models of other people: read, adapted, and written."""
