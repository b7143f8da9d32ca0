"""A process on its host: log, metrics, HTTP server, signals, service manager."""
