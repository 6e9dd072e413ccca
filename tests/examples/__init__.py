"""The example packages, run by the product on throw-away repositories."""
