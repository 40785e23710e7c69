"""Figures: `axes` and `lines` draw on matplotlib axes, the other files say what is drawn and how to read it."""
