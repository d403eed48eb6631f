"""What an assistant of a region must not claim about itself, such as a licence of a health profession."""
