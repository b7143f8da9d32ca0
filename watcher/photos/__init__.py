"""A row's photos: fetched, checked and stored in the spool folder."""
