"""The claims about itself that an assistant of a region must not make, such as a licence of a health profession."""
