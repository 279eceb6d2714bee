"""From a path to pixels: which frames, at which instants, upright."""
