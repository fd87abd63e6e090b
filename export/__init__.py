"""From torch to a bundle: train, convert, check, calibrate, evaluate, pack."""
