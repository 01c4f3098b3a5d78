"""How long a worker of which nothing is heard is believed in.

It says something every `beat` seconds, whatever it does, so silence means that it hangs, that it
is gone without a word, or that nothing comes through. To give it up too early moves work that went
well; to do so too late lets streams stand still.
"""

DOUBTFUL_BEATS = 3
LOST_BEATS = 4  # if the scheduler has lost it too
LOST_BEATS_ALONE = 16  # if only we have


def is_doubtful(silent: float, beat: float) -> bool:
    """What it has goes on, and nothing new is sent there."""
    return beat > 0 and silent > DOUBTFUL_BEATS * beat


def is_lost(silent: float, beat: float, *, named: bool) -> bool:
    """`named`: by the scheduler, as one that takes requests."""
    return beat > 0 and silent > beat * (LOST_BEATS_ALONE if named else LOST_BEATS)
