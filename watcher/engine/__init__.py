"""The engine: claims, leases, attempts and their ends, for work of any kind. It knows no kind."""
