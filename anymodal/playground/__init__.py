"""A small synthetic world of shapes, sounds and device motion, and the questions asked about it."""
