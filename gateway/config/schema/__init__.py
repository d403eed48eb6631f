"""What a person writes, section by section: shapes and descriptions. What a word refers to is the compiler's."""
