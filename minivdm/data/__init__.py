"""Where pictures of digits come from: the ones that ship, and files of the usual formats (see `files`)."""
