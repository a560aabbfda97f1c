"""What people look at: tables, plots, exported structures."""
