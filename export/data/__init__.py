"""Labelled texts and images: rows in, columns out; where they come from, how they are divided and weighed."""
