"""The one step of a build that knows which model it is."""
