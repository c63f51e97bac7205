"""From a scanner's file to images with their uncertainty: formats, what is found in them, the reconstruction."""
