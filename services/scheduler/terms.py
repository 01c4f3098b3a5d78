"""Leading: for a term, whose number grows with each leader."""

from services.core.errors import Unavailable


def standby() -> Unavailable:
    """What one that does not lead answers; whoever asks goes on to the next."""
    return Unavailable("standby: another scheduler leads", 0.5)
