"""What people look at: pictures, curves and HTML pages."""
