"""Where the files of the project stand, and how a file is written whole or not at all."""
