"""Scoring: a batch of events in, logits per harm out."""
