"""Training embedders: losses, arms, the loop, and the paper's protocol.

A new loss is an entry of `losses.LOSSES`, a new arm (what training images look like, what picks the
checkpoint, what it is compared with) one of `arms.ARMS`. Uses lib.models and the rooms below it."""
