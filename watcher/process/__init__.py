"""A process on its host: log, metrics, HTTP, signals, the service manager."""
