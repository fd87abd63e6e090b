"""A model as shipped: manifest, verification, description."""
