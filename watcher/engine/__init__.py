"""The engine: claims, leases, attempts and their outcomes, for work of any kind. It knows no specific kind."""
