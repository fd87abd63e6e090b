"""Models that were trained elsewhere: a checkpoint's folder in, a bundle out."""
