"""What can go wrong with the shipped models, said in one sentence."""


class ZooError(Exception):
    """A model is unknown, missing, damaged or cannot be trained here; the message says what to do."""
