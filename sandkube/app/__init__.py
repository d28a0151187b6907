"""Commands on clusters, which a checkout and an installed package have in common."""
