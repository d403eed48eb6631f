"""The feature of an exercise: a region refuses chats at night (`regions.X.quiet`)."""
