"""From labelled text to a bundle: train, convert, calibrate, evaluate, pack. The service never imports this."""
