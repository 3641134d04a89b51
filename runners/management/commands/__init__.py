"""Commands about runners and pools."""
