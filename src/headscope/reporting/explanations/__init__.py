"""What else could explain an accuracy, on the page: each module makes an `Explanation`."""
