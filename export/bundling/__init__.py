"""Files in, a bundle folder out, with the golden batch that it is tried by."""
