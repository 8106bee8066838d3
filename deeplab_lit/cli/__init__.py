"""Parts that commands share: parser, defaults, checks, callbacks, screen."""
