"""A row's photos: fetched, checked and spooled."""
