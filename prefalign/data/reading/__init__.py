"""Files and rows: read, and brought into the columns that training takes."""
