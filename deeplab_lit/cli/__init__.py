"""What commands share: parser, defaults, checks, callbacks, screen."""
