"""What `fairway export` can be told on the command line."""
