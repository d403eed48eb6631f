"""What each command of the `gateway` command line does, once its options are read; the value is its exit status."""
