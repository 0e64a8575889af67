"""The tables of the database as lists that can be searched, filtered, sorted and exported."""
