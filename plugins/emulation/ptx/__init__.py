"""PTX to C++: syntax, then one small function per instruction."""
