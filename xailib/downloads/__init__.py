"""Files from elsewhere: fetched by address, checked by hash, cached."""
