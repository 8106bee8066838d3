"""Weight files: reading, loading, initial values, formats of other projects."""
